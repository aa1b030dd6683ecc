// All steps of a recurrent network in one call.
//
// PyTorch's product of a step, of a few rows with weights that it reads anew, reaches half of the
// machine's rate. Here every thread keeps its share of the units, and of the weights, for all
// steps, and applies the gates to sums that have not left its cache.

#include <omp.h>

#include "gates.hpp"
#include "products.hpp"

namespace {

// Runs `steps` steps of a product and what follows it, `finish(step, row, block, sums)`. A block
// is PARTS * LANES columns of the product; `pack` writes its weights, `depth` words deep, and
// `source` says which rows a step multiplies, if any.
template <typename T, int PARTS, typename Pack, typename Source, typename Finish>
void recur(int64_t steps, int64_t rows, int64_t blocks, int64_t depth, uint32_t* packed,
           int threads, Pack pack, Source source, Finish finish) {
  constexpr int64_t MOST = SUMS / PARTS;
  const int64_t tiles = (rows + MOST - 1) / MOST, size = depth * PARTS * LANES;
#pragma omp parallel num_threads(static_cast<int>(std::min<int64_t>(threads, blocks)))
  {
    const int64_t all = omp_get_num_threads(), own = omp_get_thread_num();
    const int64_t first = blocks * own / all, last = blocks * (own + 1) / all;
    for (int64_t b = first; b < last; ++b) pack(b, packed + b * size);
    alignas(64) float sums[MOST * PARTS * LANES];
    for (int64_t step = 0; step < steps; ++step) {
      const uint32_t* from = reinterpret_cast<const uint32_t*>(source(step));
      for (int64_t b = first; b < last; ++b) {
        for (int64_t tile = 0; tile < tiles; ++tile) {
          const int64_t row = rows * tile / tiles, count = rows * (tile + 1) / tiles - row;
          if (from == nullptr)
            std::memset(sums, 0, sizeof sums);
          else
            multiply_some<T, PARTS>(count, from + row * depth, depth, packed + b * size, depth,
                                    sums);
          for (int64_t r = 0; r < count; ++r)
            finish(step, row + r, b, sums + r * PARTS * LANES);
        }
      }
#pragma omp barrier
    }
  }
}

int64_t blocks_of(int64_t width, int64_t size) { return (width + size - 1) / size; }

// From `states[0]` and `memory[0]` to those after each of `steps` steps. `packed` has room for
// the weights, of as many units as fill blocks.
template <typename Cell, typename T>
void loop_forward(float* gates, const T* weight, const float* bias, uint32_t* packed,
                  float* inner, float* memory, T* states, int64_t steps, int64_t rows,
                  int64_t width, int threads) {
  constexpr int GATES = Cell::GATES;
  const int64_t depth = width / NUMBERS<T>, area = rows * width;
  const uint32_t* words = reinterpret_cast<const uint32_t*>(weight);  // (GATES * width, depth)
  const auto pack = [=](int64_t block, uint32_t* out) {
    const int64_t unit = block * LANES, count = std::min<int64_t>(LANES, width - unit);
    for (int64_t k = 0; k < depth; ++k)
      for (int gate = 0; gate < GATES; ++gate, out += LANES) {
        const uint32_t* from = words + (gate * width + unit) * depth + k;
        for (int64_t j = 0; j < LANES; ++j) out[j] = j < count ? from[j * depth] : 0;
      }
  };
  const auto finish = [=](int64_t t, int64_t row, int64_t block, const float* sums) {
    const int64_t unit = block * LANES, count = std::min<int64_t>(LANES, width - unit);
    const Step<T> step{bias, memory + t * area, gates + t * GATES * area, inner + t * area,
                       memory + (t + 1) * area, states + (t + 1) * area};
    if (count == LANES)
      Cell::forward(step, width, row, unit, LANES, sums, LANES);
    else
      Cell::forward(step, width, row, unit, count, sums, LANES);
  };
  recur<T, GATES>(steps, rows, blocks_of(width, LANES), depth, packed, threads, pack,
                  [=](int64_t t) { return states + t * area; }, finish);
}

template <int PARTS, typename Cell, typename T>
void backward_in_blocks(const T* weight, uint32_t* packed, const float* gates, const float* inner,
                        const float* memory, const T* of_states, float* of_given, T* of_recurrent,
                        float* of_biases, float* of_hidden, float* of_memory, int64_t steps,
                        int64_t rows, int64_t width, int threads) {
  constexpr int GATES = Cell::GATES, UNITS = PARTS * LANES, STRIP = 2 * LANES;
  constexpr int EACH = NUMBERS<T>;
  const int64_t depth = GATES * width / EACH, area = rows * width;
  const auto pack = [=](int64_t block, uint32_t* out) {
    const int64_t unit = block * UNITS, count = std::min<int64_t>(UNITS, width - unit);
    for (int64_t k = 0; k < depth; ++k, out += UNITS) {
      T* numbers = reinterpret_cast<T*>(out);
      std::memset(out, 0, UNITS * sizeof *out);
      for (int64_t j = 0; j < count; ++j)
        for (int i = 0; i < EACH; ++i)
          numbers[j * EACH + i] = weight[(k * EACH + i) * width + unit + j];
    }
  };
  // as many units at a time whatever the block: the number of threads changes no bit
  const auto finish = [=](int64_t done, int64_t row, int64_t block, const float* sums) {
    const int64_t t = steps - 1 - done, last = std::min(width, (block + 1) * UNITS);
    for (int64_t unit = block * UNITS; unit < last; unit += STRIP, sums += STRIP) {
      const int64_t count = std::min<int64_t>(STRIP, last - unit);
      if (t < 0) {
        std::memcpy(of_hidden + row * width + unit, sums, count * sizeof *sums);
        continue;
      }
      const StepBack<T> step{gates + t * GATES * area, inner + t * area, memory + t * area,
                             of_states + t * area, of_memory, of_given + t * GATES * area,
                             of_recurrent + t * GATES * area};
      if (count == STRIP)
        Cell::backward(step, width, row, unit, STRIP, sums);
      else
        Cell::backward(step, width, row, unit, count, sums);
      for (int gate = 0; gate < GATES; ++gate) {
        const T* own = step.of_recurrent + (row * GATES + gate) * width + unit;
        float* sum = of_biases + (t * GATES + gate) * width + unit;
#pragma omp simd
        for (int64_t j = 0; j < count; ++j) sum[j] += load(own, j);
      }
    }
  };
  const auto source = [=](int64_t done) {
    return done == 0 ? nullptr : of_recurrent + (steps - done) * GATES * area;
  };
  // one product more than there are steps: for the state before the first
  recur<T, PARTS>(steps + 1, rows, blocks_of(width, UNITS), depth, packed, threads, pack, source,
                  finish);
}

// Gradients of both shares of the gates at all steps, and of what stood before the first;
// `of_biases`, of every step, is added to.
template <typename Cell, typename T>
void loop_backward(const T* weight, uint32_t* packed, const float* gates, const float* inner,
                   const float* memory, const T* of_states, float* of_given, T* of_recurrent,
                   float* of_biases, float* of_hidden, float* of_memory, int64_t steps,
                   int64_t rows, int64_t width, int threads) {
  // wide blocks read a row fewer times; narrow ones are enough for many threads
  const bool wide = blocks_of(width, 4 * LANES) >= 2 * threads;
  const auto run = wide ? backward_in_blocks<4, Cell, T> : backward_in_blocks<2, Cell, T>;
  run(weight, packed, gates, inner, memory, of_states, of_given, of_recurrent, of_biases,
      of_hidden, of_memory, steps, rows, width, threads);
}

}  // namespace

#define LOOP_FORWARD(T)                                                                        \
  (float* gates, const T* weight, const float* bias, uint32_t* packed, float* inner,           \
   float* memory, T* states, int64_t steps, int64_t rows, int64_t width, int threads)
BOTH_CELLS(loop_forward, LOOP_FORWARD,
           (gates, weight, bias, packed, inner, memory, states, steps, rows, width, threads))

#define LOOP_BACKWARD(T)                                                                       \
  (const T* weight, uint32_t* packed, const float* gates, const float* inner,                  \
   const float* memory, const T* of_states, float* of_given, T* of_recurrent,                  \
   float* of_biases, float* of_hidden, float* of_memory, int64_t steps, int64_t rows,          \
   int64_t width, int threads)
BOTH_CELLS(loop_backward, LOOP_BACKWARD,
           (weight, packed, gates, inner, memory, of_states, of_given, of_recurrent, of_biases,
            of_hidden, of_memory, steps, rows, width, threads))
