// Finished replies of requests that had an Idempotency-Key, in a SQLite file of their own: what a
// retry gets, also after a restart. A cache: what is lost is computed again, to the same text.
#ifndef EFEDLLM_COORDINATOR_REPLY_STORE_H_
#define EFEDLLM_COORDINATOR_REPLY_STORE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "store/database.h"

namespace efedllm {

struct StoredReply {
  std::string id;           // of whose request, and which: hex digits
  std::string fingerprint;  // of what was asked
  bool stream = false;
  std::vector<std::string> pieces;  // events' data if it was streamed, else one body; no newlines
};

// Beyond any of them the oldest go.
struct ReplyStoreLimits {
  size_t replies = 10'000;
  uint64_t bytes = 256u << 20;  // of all bodies
  absl::Duration age = absl::Hours(24);
};

// Thread-safe.
class ReplyStore {
 public:
  // Opens or makes the file, 0600. clock is borrowed. A file that can't be read is begun anew.
  // FailedPrecondition: written by a newer version of this program; Internal: can't be written.
  static absl::StatusOr<std::unique_ptr<ReplyStore>> Open(const std::string& path,
                                                          const Clock& clock,
                                                          const ReplyStoreLimits& limits = {});

  // Is there one that is not too old? Does not touch the disk.
  bool Has(const std::string& id) const ABSL_LOCKS_EXCLUDED(mu_);
  // nullopt: not there, or not any more.
  absl::StatusOr<std::optional<StoredReply>> Load(const std::string& id) ABSL_LOCKS_EXCLUDED(mu_);
  // Adds or replaces all, or none; on the disk when it returns. Removes those beyond the limits.
  // One call at a time.
  absl::Status Add(const std::vector<StoredReply>& replies) ABSL_LOCKS_EXCLUDED(mu_);
  // Only the removing.
  absl::Status RemoveExpired() { return Add({}); }

  size_t size() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  static absl::StatusOr<std::unique_ptr<ReplyStore>> OpenAsItIs(const std::string& path,
                                                                const Clock& clock,
                                                                const ReplyStoreLimits& limits);
  struct Entry {
    int64_t finished;  // Unix seconds
    uint64_t bytes;
  };
  // What is in the file, without the bodies.
  struct Index {
    std::map<std::string, Entry> entries;
    std::set<std::pair<int64_t, std::string>> by_age;
    uint64_t bytes = 0;

    void Insert(const std::string& id, const Entry& entry);
    void Erase(const std::string& id);
  };

  ReplyStore(std::unique_ptr<Database> database, const Clock& clock,
             const ReplyStoreLimits& limits);
  absl::Status ReadIndex() ABSL_LOCKS_EXCLUDED(mu_);
  bool IsExpired(int64_t finished) const;
  std::vector<std::string> TakeSurplus() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::unique_ptr<Database> database_;
  const Clock& clock_;
  const ReplyStoreLimits limits_;
  mutable absl::Mutex mu_;
  Index index_ ABSL_GUARDED_BY(mu_);
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_REPLY_STORE_H_
