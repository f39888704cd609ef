#include "layers/kernels/dispatch.h"
#include "layers/kernels/neon/neon.h"

namespace efedllm {
namespace {

constexpr KernelTable Table(const char* name, const QuantMatmuls* matmuls) {
  return {
      .name = name,
      .matmul_f32 = neon::MatmulF32,
      .matmul_f16 = neon::MatmulF16,
      .matmul_bf16 = neon::MatmulBf16,
      .matmul_quant = matmuls,
      .quantize = neon::Quantize,
      .rms_norm = neon::RmsNorm,
      .rope = neon::Rope,
      .rope_halves = neon::RopeHalves,
      .attend = neon::Attend,
      .to_f16 = neon::ToF16,
      .silu_mul = neon::SiluMul,
      .gelu_mul = neon::GeluMul,
      .soft_cap = neon::SoftCap,
      .add = neon::Add,
      .add_scaled = neon::AddScaled,
      .exp = neon::Exp,
  };
}

}  // namespace

constinit const KernelTable kNeonTable = Table("neon", &neon::kQuantMatmuls);
constinit const KernelTable kNeonDotprodTable = Table("neon_dotprod", &neon::kQuantDotprodMatmuls);

}  // namespace efedllm
