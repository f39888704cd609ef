// Double-precision functions from IEEE operations alone: the same bits on every machine, which no
// libm promises. Within about one unit in the last place over the ranges named; not for hot loops.
#ifndef EFEDLLM_LAYERS_EXACT_MATH_H_
#define EFEDLLM_LAYERS_EXACT_MATH_H_

namespace efedllm {

// x: positive and normal.
double ExactLog(double x);
// |x| <= 700.
double ExactExp(double x);
// base^exponent as e^(exponent·ln base): the error grows with |exponent·ln base|.
double ExactPow(double base, double exponent);
// |angle| <= 2^30 radians; the error is about 2^-53 absolute.
void ExactSinCos(double angle, double* sin, double* cos);

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_EXACT_MATH_H_
