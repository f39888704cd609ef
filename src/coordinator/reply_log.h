// Requests that may be sent again: who comes with the key of a request that runs gets its reply
// from the beginning, who comes later gets the stored one. Nothing runs twice.
#ifndef EFEDLLM_COORDINATOR_REPLY_LOG_H_
#define EFEDLLM_COORDINATOR_REPLY_LOG_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "coordinator/openai_json.h"
#include "coordinator/reply_source.h"
#include "coordinator/reply_store.h"

namespace efedllm {

struct ReplyLogOptions {
  size_t max_reply_bytes = 4u << 20;            // longer ones are not kept
  size_t max_running_bytes = 64u << 20;         // of all that are being written
  absl::Duration patience = absl::Seconds(60);  // a reply is written on for nobody
};

// One reply while it is written, once, and read by any number of clients. Thread-safe.
//
// A reply that is or becomes too long to be kept goes to those who read it already, as fast as the
// slowest of them reads; nobody else can join.
class SharedReply {
 public:
  // Reads from the beginning.
  class Reader final : public ReplySource {
   public:
    ~Reader() override;
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

    News Next(absl::Duration timeout) override;
    bool stream() const override;

   private:
    friend class SharedReply;
    Reader(std::shared_ptr<SharedReply> reply, uint64_t id) : reply_(std::move(reply)), id_(id) {}

    const std::shared_ptr<SharedReply> reply_;
    const uint64_t id_;
  };

  // All borrowed. running_bytes: of all replies that share it.
  SharedReply(const Clock& clock, const ReplyLogOptions& options,
              std::atomic<size_t>& running_bytes, std::string fingerprint);
  // One that was stored.
  SharedReply(const Clock& clock, const ReplyLogOptions& options,
              std::atomic<size_t>& running_bytes, StoredReply stored);
  ~SharedReply();

  const std::string& fingerprint() const { return fingerprint_; }
  // nullptr: it is too long, see above.
  static std::unique_ptr<Reader> Join(const std::shared_ptr<SharedReply>& reply);

  // For the one who writes it. Begin comes first, End or Fail last; what comes then has no effect.
  void Begin(bool stream);
  // Waits, where it must, for readers.
  void Append(std::string piece);
  void End();
  void Fail(const ApiError& error);
  // All of that: writes what comes of source, until it ends or nobody wants it.
  void Record(ReplySource& source);
  // Does nobody wait for it, and nobody will? Then it may Fail.
  bool Unwanted() const;

  // Nobody is waited for any more.
  void Abandon();
  // It ended, and nobody can have it any more.
  bool over() const;
  // The whole reply, if it may be kept.
  std::optional<StoredReply> Whole(const std::string& id) const;

 private:
  void Leave(uint64_t reader);
  ReplySource::News Next(uint64_t reader, absl::Duration timeout);
  bool IsUnwanted() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  void DropRead() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Clock& clock_;
  const ReplyLogOptions options_;
  std::atomic<size_t>& running_bytes_;
  const std::string fingerprint_;

  mutable absl::Mutex mu_;
  bool stream_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<std::string> pieces_ ABSL_GUARDED_BY(mu_);
  size_t dropped_ ABSL_GUARDED_BY(mu_) = 0;  // pieces before those
  size_t bytes_ ABSL_GUARDED_BY(mu_) = 0;    // of pieces_
  bool kept_ ABSL_GUARDED_BY(mu_) = true;    // not too long
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  bool abandoned_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<ApiError> error_ ABSL_GUARDED_BY(mu_);
  std::map<uint64_t, size_t> readers_ ABSL_GUARDED_BY(mu_);  // the piece that each reads next
  uint64_t last_reader_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Time alone_since_ ABSL_GUARDED_BY(mu_);  // where there are no readers
};

// Thread-safe. Each reply is written by a thread of its own; one more stores what is whole.
class ReplyLog {
 public:
  // clock and store are borrowed. store null: whole replies are forgotten.
  ReplyLog(const Clock& clock, ReplyStore* store, const ReplyLogOptions& options = {});
  ~ReplyLog();  // Stop()
  // Abandons what runs, stores what is whole, and returns when all is done. No effect the second
  // time.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

  struct Opened {
    std::unique_ptr<SharedReply::Reader> reader;
    bool first = true;  // this call had it written
  };
  // The reply that belongs to id. If there is none, or the last one failed, write makes it, on
  // another thread; it calls End or Fail. Errors: 422: the id belongs to another fingerprint; 409:
  // its reply is too long to be shared; 503: no thread.
  ApiResult<Opened> Open(const std::string& id, const std::string& fingerprint,
                         std::function<void(SharedReply&)> write) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  using Threads = std::list<std::thread>;
  struct Written {
    std::string id;
    std::shared_ptr<SharedReply> reply;
  };

  std::shared_ptr<SharedReply> Find(const std::string& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool Start(const Written& run, std::function<void(SharedReply&)> write)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Write(Threads::iterator place, const Written& run, std::function<void(SharedReply&)>& write)
      ABSL_LOCKS_EXCLUDED(mu_);
  void Keep() ABSL_LOCKS_EXCLUDED(mu_);
  void Store(const std::vector<Written>& written);
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return !written_.empty() || (stop_ && running_.empty());
  }

  const Clock& clock_;
  ReplyStore* const store_;
  const ReplyLogOptions options_;
  std::atomic<size_t> running_bytes_ = 0;

  absl::Mutex mu_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::map<std::string, std::shared_ptr<SharedReply>> replies_ ABSL_GUARDED_BY(mu_);  // by id
  Threads running_ ABSL_GUARDED_BY(mu_);
  Threads finished_ ABSL_GUARDED_BY(mu_);
  std::vector<Written> written_ ABSL_GUARDED_BY(mu_);  // to be stored
  bool store_failed_ = false;                          // the keeper's own

  std::thread keeper_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_REPLY_LOG_H_
