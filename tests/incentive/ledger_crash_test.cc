// kill -9 in the middle of writing, again and again.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

#include "common/random.h"
#include "incentive/ledger_world.h"

namespace efedllm {
namespace {

class LedgerCrash : public LedgerWorld {};

// What step i writes: work of three chunks, and what became of the step's before.
std::vector<Entry> StepEntries(int64_t i) {
  const auto work = [](int64_t step, int part) {
    return Work(absl::StrCat("step", step, ".", part), part == 1 ? kBob : kAda, 10 + step % 7,
                step);
  };
  std::vector<Entry> entries;
  entries.reserve(5);
  for (int part = 0; part < 3; ++part) entries.push_back(PendingEntry(work(i, part), "{}"));
  if (i > 0) {
    entries.push_back(PostEntry(work(i - 1, 0), i));
    entries.push_back(VoidEntry(work(i - 1, 1), 5, i, "{}"));
  }
  return entries;
}

// Writes steps from `first` on until it is killed, and says each that is written to the pipe.
[[noreturn]] void WriteSteps(const std::string& path, const SigningKey& key, int64_t first,
                             int pipe) {
  auto ledger = Ledger::Open(path, absl::Now());
  if (!ledger.ok()) _exit(1);
  for (int64_t i = first;; ++i) {
    if (!(*ledger)->Append(StepEntries(i)).ok()) _exit(2);
    if (i % 5 == 0 && !(*ledger)->SignHead(key, absl::Now()).ok()) _exit(3);
    if (write(pipe, &i, sizeof i) != sizeof i) _exit(4);
  }
}

// The last step that the process said is written; -1: none.
int64_t RunAndKill(const std::string& path, const SigningKey& key, int64_t first,
                   uint64_t after_micros) {
  int pipes[2];
  EXPECT_EQ(pipe(pipes), 0);
  const pid_t child = fork();
  if (child == 0) {
    close(pipes[0]);
    WriteSteps(path, key, first, pipes[1]);
  }
  close(pipes[1]);
  usleep(static_cast<useconds_t>(after_micros));
  kill(child, SIGKILL);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status)) << "the writer ended by itself: " << WEXITSTATUS(status);
  int64_t step = 0, last = -1;
  while (read(pipes[0], &step, sizeof step) == sizeof step) last = step;
  close(pipes[0]);
  return last;
}

// EFEDLLM_CRASH_ROUNDS: how often, for a longer run.
TEST_F(LedgerCrash, LosesNothingThatWasSaidToBeWrittenAndDoublesNothing) {
  Close();
  const char* wanted = std::getenv("EFEDLLM_CRASH_ROUNDS");
  const int rounds = wanted == nullptr ? 40 : std::atoi(wanted);
  const uint64_t seed = 20261123;
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  Random random(seed);
  const SigningKey key = Key();
  int64_t written = -1;
  for (int round = 0; round < rounds; ++round) {
    // The step that was cut off, and the one before it, are tried again.
    const int64_t last =
        RunAndKill(path_, key, std::max<int64_t>(0, written), 1000 + random.Below(60'000));
    written = std::max(written, last);
    const LedgerVerification verification = Verify();
    ASSERT_FALSE(verification.fault.has_value())
        << "round " << round << ": " << verification.fault->what;
    auto reader = LedgerReader::Open(path_);
    ASSERT_TRUE(reader.ok()) << reader.status();
    for (int64_t i = std::max<int64_t>(0, written - 3); i <= written; ++i) {
      for (const Entry& entry : StepEntries(i)) {
        const auto found = (*reader)->Find(entry.key);
        ASSERT_TRUE(found.ok() && found->has_value()) << "round " << round << ": " << entry.key;
        ASSERT_TRUE(SaysTheSame((*found)->entry, [&] {
          Entry same = entry;
          Normalize(same);
          return same;
        }()));
      }
    }
  }
  Open();
  int64_t steps = written + 1;
  if (ledger_->reader().Find(absl::StrCat("step", steps, ".0"))->has_value()) ++steps;
  // Nothing but these steps: each entry once, and of the last all or nothing.
  EXPECT_EQ(Size(), static_cast<uint64_t>(1 + 3 * steps + 2 * std::max<int64_t>(0, steps - 1)));
  Micros posted = 0;
  for (int64_t i = 0; i + 1 < steps; ++i) posted += 10 + i % 7;
  EXPECT_EQ(Balance(NodeAccount(kAda)), posted);
  Close();
  EXPECT_EQ(Fault({.signer = key.public_key()}), "");
}

}  // namespace
}  // namespace efedllm
