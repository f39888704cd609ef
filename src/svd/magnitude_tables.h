// Fits the probabilities of quantized coefficients to a sample. Offline, in doubles.
#ifndef EFEDLLM_SVD_MAGNITUDE_TABLES_H_
#define EFEDLLM_SVD_MAGNITUDE_TABLES_H_

#include <Eigen/Core>

#include "svd/boundary_basis.h"

namespace efedllm {

// Fills in model.tables for model.log_sigma. coefficients: [rows][coefficients], in units of a
// row's scale. Tables are per class of sigma/step and serve every step, so that the sample is
// quantized with several; a class that it hardly reaches gets the shape of a normal distribution
// with a Laplacian's tails.
void FitMagnitudeTables(const Eigen::MatrixXf& coefficients, CoefficientModel& model);

}  // namespace efedllm

#endif  // EFEDLLM_SVD_MAGNITUDE_TABLES_H_
