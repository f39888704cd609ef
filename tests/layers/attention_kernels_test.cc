// Attention over pages: every table equals the scalar one, bit for bit.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "layers/kernels/kernel_table.h"
#include "layers/kernels/kv_layout.h"
#include "layers/layers_world.h"
#include "tensor/half.h"

namespace efedllm {
namespace {

// Pages of one kv head, keys and values of any type around `scale`.
class Pages {
 public:
  Pages(Random& random, KvType type, size_t head_dim, size_t positions, float scale = 1)
      : type_(type), head_dim_(head_dim) {
    for (size_t i = 0; i * kKvPage < positions; ++i) {
      memory_.emplace_back(2 * AreaBytes());
      Fill(random, scale, memory_.back().data());
      Fill(random, scale, memory_.back().data() + AreaBytes());
      pages_.push_back(memory_.back().data());
    }
  }
  // Makes one position's key and value something else, everywhere.
  void Poison(size_t position, uint8_t byte) {
    uint8_t* keys = memory_[position / kKvPage].data();
    const size_t slot = position % kKvPage, bytes = KvNumberBytes(type_);
    for (size_t d = 0; d < head_dim_; ++d) {
      std::memset(keys + (d * kKvPage + slot) * bytes, byte, bytes);
    }
    uint8_t* values = keys + AreaBytes();
    std::memset(values + slot * head_dim_ * bytes, byte, head_dim_ * bytes);
    if (type_ != KvType::kQ8_0) return;
    const size_t blocks = head_dim_ / kKvBlock;
    for (size_t b = 0; b < blocks; ++b) {
      std::memset(keys + KvScalesAt(head_dim_) + (b * kKvPage + slot) * 2, byte, 2);
      std::memset(values + KvScalesAt(head_dim_) + (slot * blocks + b) * 2, byte, 2);
    }
  }
  size_t AreaBytes() const { return kKvPage * KvBytes(type_, head_dim_); }
  AttendArgs Args(const std::vector<AttendQuery>& queries) const {
    return {.type = type_,
            .queries = queries.data(),
            .count = queries.size(),
            .pages = pages_.data(),
            .k_offset = 0,
            .v_offset = AreaBytes(),
            .head_dim = head_dim_,
            .scale = 0.3f,
            .soft_cap = 0};
  }

 private:
  void Fill(Random& random, float scale, uint8_t* area) {
    const size_t numbers = kKvPage * head_dim_;
    for (size_t i = 0; i < numbers; ++i) {
      const float value = Gaussian(random) * scale;
      if (type_ == KvType::kF32) std::memcpy(area + 4 * i, &value, 4);
      if (type_ == KvType::kF16) StoreF16(value, area + 2 * i);
      if (type_ == KvType::kQ8_0) area[i] = static_cast<uint8_t>(random.Below(255) - 127);
    }
    if (type_ != KvType::kQ8_0) return;
    for (size_t i = 0; i < numbers / kKvBlock; ++i) {
      StoreF16(std::fabs(Gaussian(random)) * scale / 64, area + numbers + 2 * i);
    }
  }

  const KvType type_;
  const size_t head_dim_;
  std::vector<std::vector<uint8_t>> memory_;
  std::vector<const uint8_t*> pages_;
};

// Queries that see [first, end) each.
struct Queries {
  Queries(Random& random, size_t head_dim, std::vector<std::pair<uint32_t, uint32_t>> seen)
      : q(Gaussians(random, seen.size() * head_dim)), out(q.size(), 7.0f) {
    for (size_t i = 0; i < seen.size(); ++i) {
      list.push_back({&q[i * head_dim], &out[i * head_dim], seen[i].first, seen[i].second});
    }
  }
  std::vector<float> q, out;
  std::vector<AttendQuery> list;
};

std::vector<float> Attended(const KernelTable& table, const Pages& pages, Queries& queries,
                            float soft_cap = 0) {
  AttendArgs args = pages.Args(queries.list);
  args.soft_cap = soft_cap;
  table.attend(args);
  return queries.out;
}

using Case = std::tuple<const KernelTable*, KvType>;

class AttentionKernels : public testing::TestWithParam<Case> {
 protected:
  std::vector<size_t> HeadDims() const {
    if (type_ == KvType::kQ8_0) return {32, 64, 96, 128, 256};
    return {2, 8, 20, 32, 40, 64, 80, 96, 128, 256};
  }
  const KernelTable& scalar_ = ScalarKernels();
  const KernelTable& table_ = *std::get<0>(GetParam());
  const KvType type_ = std::get<1>(GetParam());
};

INSTANTIATE_TEST_SUITE_P(Isa, AttentionKernels,
                         testing::Combine(testing::ValuesIn(RunnableKernels()),
                                          testing::Values(KvType::kF32, KvType::kF16,
                                                          KvType::kQ8_0)),
                         [](const auto& test) {
                           return std::string(std::get<0>(test.param)->name) + "_" +
                                  std::string(KvTypeName(std::get<1>(test.param)));
                         });

TEST_P(AttentionKernels, EqualTheDefinitionForAllShapes) {
  Random random(24);
  for (const size_t head_dim : HeadDims()) {
    for (const uint32_t positions : {1, 2, 63, 64, 65, 130, 200}) {
      const Pages pages(random, type_, head_dim, positions);
      const size_t count = 1 + random.Below(kMaxAttendQueries);
      Queries queries(random, head_dim, std::vector(count, std::pair{0u, positions}));
      for (const float soft_cap : {0.0f, 2.0f}) {
        const std::vector<float> want = Attended(scalar_, pages, queries, soft_cap);
        EXPECT_TRUE(SameBits(want, Attended(table_, pages, queries, soft_cap)))
            << head_dim << " dims, " << positions << " positions, " << count << " queries";
      }
    }
  }
}

TEST_P(AttentionKernels, EachQuerySeesWhatIsItsOwn) {
  Random random(27);
  for (const size_t head_dim : HeadDims()) {
    Pages pages(random, type_, head_dim, 320);
    for (const size_t count : {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 21, 32}) {
      std::vector<std::pair<uint32_t, uint32_t>> seen;
      for (size_t i = 0; i < count; ++i) {
        const uint32_t end = static_cast<uint32_t>(1 + random.Below(320));
        seen.push_back({static_cast<uint32_t>(random.Below(end)), end});
      }
      Queries queries(random, head_dim, seen);
      const std::vector<float> want = Attended(scalar_, pages, queries);
      EXPECT_TRUE(SameBits(want, Attended(table_, pages, queries)))
          << head_dim << " dims, " << count << " queries";
    }
  }
}

// What pages hold beyond the last query's own position is never read into a result.
TEST_P(AttentionKernels, NothingLeaksFromUnwrittenPositions) {
  Random random(28);
  const size_t head_dim = type_ == KvType::kQ8_0 ? 64 : 40;
  Pages pages(random, type_, head_dim, 128);
  Queries queries(random, head_dim, {{0, 70}, {3, 71}, {66, 72}});
  const std::vector<float> want = Attended(table_, pages, queries);
  for (size_t position = 72; position < 128; ++position) pages.Poison(position, 0xff);  // NaN
  EXPECT_TRUE(SameBits(want, Attended(table_, pages, queries)));
}

TEST_P(AttentionKernels, EqualTheDefinitionForExtremeNumbers) {
  Random random(29);
  const size_t head_dim = 64;
  const float scales[] = {0, 1e-30f, 1e-6f, 300.0f};
  for (const float scale : scales) {
    const Pages pages(random, type_, head_dim, 150, scale);
    Queries queries(random, head_dim, {{0, 150}, {0, 149}, {10, 150}, {64, 128}, {149, 150}});
    const std::vector<float> want = Attended(scalar_, pages, queries);
    EXPECT_TRUE(SameBits(want, Attended(table_, pages, queries))) << scale;
    for (const float x : want) EXPECT_TRUE(std::isfinite(x)) << scale;
  }
}

}  // namespace
}  // namespace efedllm
