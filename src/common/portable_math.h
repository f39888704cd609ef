// Functions in double as fixed sequences of +, -, *, /, std::fma and bit operations: the same bits
// on every CPU and C library, which libm does not promise. (Compiled with -ffp-contract=off, as
// everything here is.) Not for hot loops.
#ifndef EFEDLLM_COMMON_PORTABLE_MATH_H_
#define EFEDLLM_COMMON_PORTABLE_MATH_H_

namespace efedllm {

// e^x, within 2 units in the last place. 0 below -708 (where the result would be denormal),
// infinity above 709. NaN stays NaN.
double PortableExp(double x);
// ln x for a normal x > 0, within 2 units in the last place; minus infinity for 0 and denormals,
// NaN for what is negative or NaN.
double PortableLog(double x);
// base^exponent as e^(exponent ln base), base > 0: the error grows with |exponent ln base|.
double PortablePow(double base, double exponent);
// |angle| <= 2^30 radians; the error is about 2^-53, absolute.
void PortableSinCos(double angle, double* sin, double* cos);

}  // namespace efedllm

#endif  // EFEDLLM_COMMON_PORTABLE_MATH_H_
