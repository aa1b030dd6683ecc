// The gates of recurrent networks, a step at a time.

#include "gates.hpp"

namespace {

// `recurrent` is the state's share of the gates, without its bias.
template <typename Cell, typename T>
void forward(float* gates, const T* recurrent, const float* bias, const float* before,
             float* inner, float* memory, T* hidden, int64_t rows, int64_t width, int threads) {
  const Step<T> step{bias, before, gates, inner, memory, hidden};
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < rows; ++i) {
    const T* own = recurrent + i * Cell::GATES * width;
    for (int64_t j = 0; j < width; j += LANES)
      Cell::forward(step, width, i, j, std::min<int64_t>(LANES, width - j), own + j, width);
  }
}

template <typename Cell, typename T>
void backward(const float* gates, const float* inner, const float* before, const T* of_output,
              const T* of_hidden, float* of_memory, float* of_given, T* of_recurrent, int64_t rows,
              int64_t width, int threads) {
  const StepBack<T> step{gates, inner, before, of_output, of_memory, of_given, of_recurrent};
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < width; j += LANES)
      Cell::backward(step, width, i, j, std::min<int64_t>(LANES, width - j),
                     of_hidden + i * width + j);
}

}  // namespace

#define FORWARD(T)                                                                              \
  (float* gates, const T* recurrent, const float* bias, const float* before, float* inner,      \
   float* memory, T* hidden, int64_t rows, int64_t width, int threads)
#define BACKWARD(T)                                                                             \
  (const float* gates, const float* inner, const float* before, const T* of_output,             \
   const T* of_hidden, float* of_memory, float* of_given, T* of_recurrent, int64_t rows,        \
   int64_t width, int threads)

BOTH_CELLS(forward, FORWARD,
           (gates, recurrent, bias, before, inner, memory, hidden, rows, width, threads))
BOTH_CELLS(backward, BACKWARD,
           (gates, inner, before, of_output, of_hidden, of_memory, of_given, of_recurrent, rows,
            width, threads))
