// All steps of a recurrent network in one call.
//
// PyTorch's product of a step, of a few rows with weights that it reads anew, reaches half of the
// machine's rate. Here every thread keeps its share of the units, and of the weights, for all
// steps, and applies the gates to sums that have not left its cache.

#include <omp.h>

#include "gates.hpp"
#include "products.hpp"

namespace {

// Where steps stand in arrays of the rows of all of them. A step has no more rows than the one
// before it: sentences stand longest first, and each leaves after its last word.
struct Steps {
  const int64_t* starts;  // (steps + 1)

  int64_t rows(int64_t t) const { return starts[t + 1] - starts[t]; }
  // in arrays that also have what stood before the first step
  int64_t before(int64_t t) const { return t == 0 ? 0 : after(t - 1); }
  int64_t after(int64_t t) const { return starts[1] + starts[t]; }
};

// What a step multiplies, the first so many of its rows; for the others the product is 0.
template <typename T>
struct Source {
  const T* rows;
  int64_t multiplied, all;
};

// Runs `steps` steps of a product and what follows it, `finish(step, row, block, sums)`. A block
// is PARTS * LANES columns of the product; `pack` writes its weights, `depth` words deep, and
// `source` says what a step multiplies.
template <typename T, int PARTS, typename Pack, typename SourceOf, typename Finish>
void recur(int64_t steps, int64_t blocks, int64_t depth, uint32_t* packed, int threads,
           Pack pack, SourceOf source, Finish finish) {
  constexpr int64_t MOST = SUMS / PARTS;
  const int64_t size = depth * PARTS * LANES;
#pragma omp parallel num_threads(static_cast<int>(std::min<int64_t>(threads, blocks)))
  {
    const int64_t all = omp_get_num_threads(), own = omp_get_thread_num();
    const int64_t first = blocks * own / all, last = blocks * (own + 1) / all;
    for (int64_t b = first; b < last; ++b) pack(b, packed + b * size);
    alignas(64) float sums[MOST * PARTS * LANES];
    for (int64_t step = 0; step < steps; ++step) {
      const Source<T> own_rows = source(step);
      const uint32_t* from = reinterpret_cast<const uint32_t*>(own_rows.rows);
      const int64_t rows = own_rows.multiplied, tiles = (rows + MOST - 1) / MOST;
      for (int64_t b = first; b < last; ++b) {
        for (int64_t tile = 0; tile < tiles; ++tile) {
          const int64_t row = rows * tile / tiles, count = rows * (tile + 1) / tiles - row;
          multiply_some<T, PARTS>(count, from + row * depth, depth, packed + b * size, depth,
                                  sums);
          for (int64_t r = 0; r < count; ++r)
            finish(step, row + r, b, sums + r * PARTS * LANES);
        }
        std::fill(sums, sums + PARTS * LANES, 0.0f);
        for (int64_t row = rows; row < own_rows.all; ++row) finish(step, row, b, sums);
      }
#pragma omp barrier
    }
  }
}

int64_t blocks_of(int64_t width, int64_t size) { return (width + size - 1) / size; }

// From the state and the memory in front to those after each step. `packed` has room for the
// weights, of as many units as fill blocks.
template <typename Cell, typename T>
void loop_forward(float* gates, const T* weight, const float* bias, uint32_t* packed,
                  float* inner, float* memory, T* states, const int64_t* starts, int64_t steps,
                  int64_t width, int threads) {
  constexpr int GATES = Cell::GATES;
  const int64_t depth = width / NUMBERS<T>;
  const Steps at{starts};
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
    const Step<T> step{bias,
                       memory + at.before(t) * width,
                       gates + starts[t] * GATES * width,
                       inner + starts[t] * width,
                       memory + at.after(t) * width,
                       states + at.after(t) * width};
    if (count == LANES)  // known to the compiler
      Cell::forward(step, width, row, unit, LANES, sums, LANES);
    else
      Cell::forward(step, width, row, unit, count, sums, LANES);
  };
  const auto source = [=](int64_t t) {
    return Source<T>{states + at.before(t) * width, at.rows(t), at.rows(t)};
  };
  recur<T, GATES>(steps, blocks_of(width, LANES), depth, packed, threads, pack, source, finish);
}

// Gradients of both shares of the gates at all steps, and of what stood before the first;
// `of_biases`, of every step, is added to.
template <typename Cell, typename T>
void loop_backward(const T* weight, uint32_t* packed, const float* gates, const float* inner,
                   const float* memory, const T* of_states, float* of_given, T* of_recurrent,
                   float* of_biases, float* of_hidden, float* of_memory, const int64_t* starts,
                   int64_t steps, int64_t width, int threads) {
  // narrow blocks, of which threads get like shares; wide ones are faster from 600 units on alone
  constexpr int GATES = Cell::GATES, PARTS = 2, UNITS = PARTS * LANES;
  constexpr int EACH = NUMBERS<T>;
  const int64_t depth = GATES * width / EACH;
  const Steps at{starts};
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
  const auto finish = [=](int64_t done, int64_t row, int64_t block, const float* sums) {
    const int64_t t = steps - 1 - done, last = std::min(width, (block + 1) * UNITS);
    for (int64_t unit = block * UNITS; unit < last; unit += LANES, sums += LANES) {
      const int64_t count = std::min<int64_t>(LANES, last - unit);
      if (t < 0) {
        std::memcpy(of_hidden + row * width + unit, sums, count * sizeof *sums);
        continue;
      }
      const int64_t start = starts[t] * width;
      const StepBack<T> step{gates + GATES * start, inner + start, memory + at.before(t) * width,
                             of_states + start, of_memory, of_given + GATES * start,
                             of_recurrent + GATES * start};
      if (count == LANES)
        Cell::backward(step, width, row, unit, LANES, sums);
      else
        Cell::backward(step, width, row, unit, count, sums);
      for (int gate = 0; gate < GATES; ++gate) {
        const T* own = step.of_recurrent + (row * GATES + gate) * width + unit;
        float* sum = of_biases + (t * GATES + gate) * width + unit;
        write(sum, read(sum, count) + read(own, count), count);
      }
    }
  };
  const auto source = [=](int64_t done) {
    const int64_t t = steps - done;  // the step whose gates the product takes
    const int64_t all = at.rows(std::max<int64_t>(t - 1, 0));
    if (done == 0) return Source<T>{nullptr, 0, all};
    return Source<T>{of_recurrent + starts[t] * GATES * width, at.rows(t), all};
  };
  // one product more than there are steps: for the state before the first
  recur<T, PARTS>(steps + 1, blocks_of(width, UNITS), depth, packed, threads, pack, source,
                  finish);
}

}  // namespace

#define LOOP_FORWARD(T)                                                                        \
  (float* gates, const T* weight, const float* bias, uint32_t* packed, float* inner,           \
   float* memory, T* states, const int64_t* starts, int64_t steps, int64_t width, int threads)
BOTH_CELLS(loop_forward, LOOP_FORWARD,
           (gates, weight, bias, packed, inner, memory, states, starts, steps, width, threads))

#define LOOP_BACKWARD(T)                                                                       \
  (const T* weight, uint32_t* packed, const float* gates, const float* inner,                  \
   const float* memory, const T* of_states, float* of_given, T* of_recurrent,                  \
   float* of_biases, float* of_hidden, float* of_memory, const int64_t* starts,                \
   int64_t steps, int64_t width, int threads)
BOTH_CELLS(loop_backward, LOOP_BACKWARD,
           (weight, packed, gates, inner, memory, of_states, of_given, of_recurrent, of_biases,
            of_hidden, of_memory, starts, steps, width, threads))
