// A worker, its state folder and a coordinator that the test controls, over real sockets and real
// TLS.
#ifndef EFEDLLM_TESTS_WORKER_WORKER_WORLD_H_
#define EFEDLLM_TESTS_WORKER_WORKER_WORLD_H_

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "model/gguf_builder.h"
#include "net/net_world.h"
#include "testing/plain_frame.h"
#include "worker/fake_coordinator.h"
#include "worker/worker.h"

namespace efedllm {

// Feed-forward matrices of three chunks each.
inline const std::string& TinyModel() {
  static const auto* model = [] {
    TinyLlama tiny;
    tiny.d_ffn = 20000;
    return new std::string(tiny.Build());
  }();
  return *model;
}

inline WorkerOptions Options(const FakeCoordinator& coordinator, const std::string& state_dir) {
  WorkerOptions options;
  options.coordinator = coordinator.address();
  options.token = coordinator.token();
  options.state_dir = state_dir;
  options.name = "test";
  options.listen = "127.0.0.1:0";
  options.engine_version = "0";
  options.profile = NodeProfile{.threads = 1, .memory_bytes = uint64_t{1} << 30};
  options.least_backoff = absl::Milliseconds(10);
  options.most_backoff = absl::Milliseconds(50);
  return options;
}

class WorkerWorld : public ::testing::Test {
 protected:
  std::unique_ptr<Worker> StartWorker(const WorkerOptions& options) {
    absl::StatusOr<std::unique_ptr<Worker>> worker = Worker::Create(options, clock_);
    EXPECT_TRUE(worker.ok()) << worker.status();
    (*worker)->Start();
    return *std::move(worker);
  }
  std::unique_ptr<Worker> StartWorker() {
    return StartWorker(Options(coordinator_, state_.path()));
  }

  // The end of a worker that ends by itself.
  absl::Status EndOf(Worker& worker) {
    const std::optional<absl::Status> end = worker.Wait(absl::Seconds(20));
    EXPECT_TRUE(end.has_value()) << "the worker still runs";
    return end.value_or(absl::OkStatus());
  }

  // A worker that is ready with these layers in this epoch.
  std::unique_ptr<Worker> ReadyWorker(Epoch epoch, LayerRange layers = {0, 2}) {
    std::unique_ptr<Worker> worker = StartWorker();
    EXPECT_TRUE(coordinator_.AwaitAttached());
    coordinator_.Assign(coordinator_.MakeAssignment(epoch, layers));
    EXPECT_TRUE(coordinator_.AwaitReport(epoch, StageState::kReady));
    return worker;
  }

  Step OneStep(uint64_t epoch, uint64_t id, std::vector<SequenceSpan> spans) const {
    Step step;
    step.epoch = Epoch{epoch};
    step.id = StepId{id};
    step.spans = std::move(spans);
    return step;
  }
  Matrix SomeHidden(size_t rows) const {
    Matrix hidden(rows, coordinator_.config().d_model);
    float next = -1;
    for (float& value : hidden.ref().span()) value = (next += 0.013f) > 1 ? next -= 2 : next;
    return hidden;
  }
  absl::Status SendStep(HopSender& hop, const Step& step) {
    return hop.Send(PlainStepToWire(step, SomeHidden(step.tokens()).ref()), absl::Seconds(10));
  }
  StepLimits limits() const { return coordinator_.MakeAssignment(Epoch{1}, {0, 1}).limits; }

  SystemClock clock_;
  TemporaryFolder state_;
  FakeCoordinator coordinator_{BytesOf(TinyModel())};
};

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_WORKER_WORKER_WORLD_H_
