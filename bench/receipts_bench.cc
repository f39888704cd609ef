// What receipts cost a stage for each token: the rows by themselves, their digests, the record of
// chunks, the rows that are kept; and a signature, of which there is one a second.
//
//   receipts_bench
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/clock.h"
#include "common/random.h"
#include "svd/codec.h"
#include "worker/stage_receipts.h"

namespace efedllm {
namespace {

// Microseconds that one call takes: the least of some rounds.
double Micros(const std::function<void()>& call, int calls) {
  double least = 1e30;
  for (int round = 0; round < 7; ++round) {
    const absl::Time start = SteadyNow();
    for (int i = 0; i < calls; ++i) call();
    least = std::min(least, absl::ToDoubleMicroseconds(SteadyNow() - start) / calls);
  }
  return least;
}

void Measure(size_t d_model, CodecId id, uint32_t rows) {
  const CodecSetting setting{id, 0};
  ActivationCodec codec(d_model);
  Matrix hidden(rows, d_model);
  Random random(1);
  for (float& value : hidden.ref().span()) value = static_cast<float>(random.Uniform()) - 0.5f;
  const SystemClock clock;
  KeptRows keep({.memory_bytes = uint64_t{24} << 20, .disk_bytes = 0, .path = ""});
  ReceiptWriter writer(SigningKey::OpenOrCreate("/tmp/receipts_bench.key").value(), clock, "");
  Assignment assignment;
  assignment.epoch = Epoch{1};
  StageReceipts receipts(assignment, keep, writer);

  std::string bytes;
  DigestedRows inputs, outputs;
  const auto encode = [&](EncodedRows* alone) {
    bytes.clear();
    codec.Encode(setting, hidden.ref(), bytes, alone);
  };
  const int calls = static_cast<int>(20'000'000 / (rows * d_model * 8) + 20);
  const double plain = Micros([&] { encode(nullptr); }, calls);
  const double with_rows = Micros(
      [&] {
        outputs.rows.Clear();
        encode(&outputs.rows);
      },
      calls);
  const double digests =
      Micros([&] { DigestRows(outputs.rows, setting.number(), outputs.sides); }, calls);
  outputs.codec = setting.number();
  inputs = outputs;
  Step step;
  step.spans.push_back({SequenceId{1}, 0, rows});
  const double record = Micros(
      [&] {
        receipts.Computed(step, inputs, outputs, absl::ZeroDuration(), absl::ZeroDuration());
        step.spans[0].first_position += rows;
        if (step.spans[0].first_position % 128 == 0)
          keep.Tend();  // as a worker, a few times a second
        if (step.spans[0].first_position < 4096) return;
        step.spans[0] = {SequenceId{step.spans[0].sequence.v + 1}, 0, rows};
      },
      calls);
  const double all = 2 * (with_rows - plain + digests) + record;
  std::printf(
      "d %4zu  %-4s  %3u rows  per row: rows %.2f µs, digests %.2f µs, record %.2f µs; "
      "of a stage, both sides: %.2f µs\n",
      d_model, std::string(CodecName(id)).c_str(), rows, (with_rows - plain) / rows, digests / rows,
      record / rows, all / rows);
}

}  // namespace
}  // namespace efedllm

int main() {
  for (const size_t d_model : {128, 256, 2048, 4096}) {
    for (const auto id : {efedllm::CodecId::kF32, efedllm::CodecId::kInt8}) {
      for (const uint32_t rows : {1, 16, 128}) efedllm::Measure(d_model, id, rows);
    }
  }
  const auto key = efedllm::SigningKey::OpenOrCreate("/tmp/receipts_bench.key").value();
  const std::string text(15'000, 'x');
  std::printf(
      "signature of a receipt with 128 chunks: %.0f µs, verified in %.0f µs\n",
      efedllm::Micros([&] { key.Sign(text); }, 20),
      efedllm::Micros([&] { efedllm::Verify(key.public_key(), text, key.Sign(text)); }, 20));
  return 0;
}
