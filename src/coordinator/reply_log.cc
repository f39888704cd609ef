#include "coordinator/reply_log.h"

#include <algorithm>
#include <exception>
#include <iterator>
#include <system_error>

#include "spdlog/spdlog.h"

namespace efedllm {
namespace {

// How far the writer of a reply that is not kept may be ahead of its slowest reader.
constexpr size_t kWindowBytes = 256u << 10;
constexpr absl::Duration kPoll = absl::Milliseconds(50);  // "does anybody wait for it?"
constexpr absl::Duration kSweep = absl::Minutes(10);      // of the store, for what is too old

const ApiError kReused = {
    422,
    "this Idempotency-Key was used for another request: send the same body again, or another key",
    "", "idempotency_key_reused"};
const ApiError kTooLong = {409,
                           "the request with this Idempotency-Key is running, and its reply is too "
                           "long to be sent twice; try again when it is done",
                           "", "idempotency_key_in_use"};
const ApiError kStopping = {503, "the coordinator is shutting down", "", "not_serving"};

}  // namespace

SharedReply::SharedReply(const Clock& clock, const ReplyLogOptions& options,
                         std::atomic<size_t>& running_bytes, std::string fingerprint)
    : clock_(clock),
      options_(options),
      running_bytes_(running_bytes),
      fingerprint_(std::move(fingerprint)),
      alone_since_(clock.Now()) {}

SharedReply::SharedReply(const Clock& clock, const ReplyLogOptions& options,
                         std::atomic<size_t>& running_bytes, StoredReply stored)
    : SharedReply(clock, options, running_bytes, std::move(stored.fingerprint)) {
  absl::MutexLock lock(&mu_);
  stream_ = stored.stream;
  for (const std::string& piece : stored.pieces) bytes_ += piece.size();
  running_bytes_ += bytes_;
  std::move(stored.pieces.begin(), stored.pieces.end(), std::back_inserter(pieces_));
  ended_ = true;
}

SharedReply::~SharedReply() {
  absl::MutexLock lock(&mu_);
  running_bytes_ -= bytes_;
}

SharedReply::Reader::~Reader() { reply_->Leave(id_); }

ReplySource::News SharedReply::Reader::Next(absl::Duration timeout) {
  return reply_->Next(id_, timeout);
}

bool SharedReply::Reader::stream() const {
  absl::MutexLock lock(&reply_->mu_);
  return reply_->stream_;
}

std::unique_ptr<SharedReply::Reader> SharedReply::Join(const std::shared_ptr<SharedReply>& reply) {
  absl::MutexLock lock(&reply->mu_);
  if (!reply->kept_) return nullptr;
  const uint64_t id = ++reply->last_reader_;
  reply->readers_[id] = 0;
  return std::unique_ptr<Reader>(new Reader(reply, id));
}

void SharedReply::Leave(uint64_t reader) {
  absl::MutexLock lock(&mu_);
  readers_.erase(reader);
  if (readers_.empty()) alone_since_ = clock_.Now();
  if (!kept_) DropRead();
}

ReplySource::News SharedReply::Next(uint64_t reader, absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  size_t& next = readers_[reader];
  const auto has_news = [this, &next] {
    mu_.AssertReaderHeld();
    return next < dropped_ + pieces_.size() || ended_;
  };
  mu_.AwaitWithTimeout(absl::Condition(&has_news), timeout);
  ReplySource::News news;
  if (next < dropped_ + pieces_.size()) {
    news.piece = pieces_[next++ - dropped_];
    if (!kept_) DropRead();
    return news;
  }
  news.ended = ended_;
  news.error = error_;
  return news;
}

void SharedReply::Begin(bool stream) {
  absl::MutexLock lock(&mu_);
  stream_ = stream;
}

void SharedReply::Append(std::string piece) {
  absl::MutexLock lock(&mu_);
  if (ended_) return;
  bytes_ += piece.size();
  running_bytes_ += piece.size();
  pieces_.push_back(std::move(piece));
  if (bytes_ > options_.max_reply_bytes || running_bytes_ > options_.max_running_bytes) {
    kept_ = false;
  }
  if (kept_) return;
  DropRead();
  const auto may_go_on = [this] {
    mu_.AssertReaderHeld();
    return bytes_ <= kWindowBytes || IsUnwanted();
  };
  mu_.Await(absl::Condition(&may_go_on));
}

void SharedReply::End() {
  absl::MutexLock lock(&mu_);
  ended_ = true;
}

void SharedReply::Fail(const ApiError& error) {
  absl::MutexLock lock(&mu_);
  if (ended_) return;
  ended_ = true;
  error_ = error;
}

void SharedReply::Record(ReplySource& source) {
  bool begun = false;
  while (!Unwanted()) {
    ReplySource::News news = source.Next(kPoll);
    if (news.piece.has_value()) {
      if (!std::exchange(begun, true)) Begin(source.stream());
      Append(*std::move(news.piece));
    } else if (news.error.has_value()) {
      return Fail(*news.error);
    } else if (news.ended) {
      return End();
    }
  }
  Fail({499, "nobody waited for the reply any more", "", ""});
}

bool SharedReply::Unwanted() const {
  absl::MutexLock lock(&mu_);
  return IsUnwanted();
}

bool SharedReply::IsUnwanted() const {
  if (abandoned_) return true;
  return readers_.empty() && (!kept_ || clock_.Now() - alone_since_ > options_.patience);
}

void SharedReply::Abandon() {
  absl::MutexLock lock(&mu_);
  abandoned_ = true;
}

bool SharedReply::over() const {
  absl::MutexLock lock(&mu_);
  return ended_ && (error_.has_value() || !kept_);
}

std::optional<StoredReply> SharedReply::Whole(const std::string& id) const {
  absl::MutexLock lock(&mu_);
  if (!ended_ || error_.has_value() || !kept_) return std::nullopt;
  return StoredReply{.id = id,
                     .fingerprint = fingerprint_,
                     .stream = stream_,
                     .pieces = {pieces_.begin(), pieces_.end()}};
}

void SharedReply::DropRead() {
  size_t least = dropped_ + pieces_.size();
  for (const auto& [reader, next] : readers_) least = std::min(least, next);
  for (; dropped_ < least; ++dropped_) {
    bytes_ -= pieces_.front().size();
    running_bytes_ -= pieces_.front().size();
    pieces_.pop_front();
  }
}

ReplyLog::ReplyLog(const Clock& clock, ReplyStore* store, const ReplyLogOptions& options)
    : clock_(clock), store_(store), options_(options), keeper_([this] { Keep(); }) {}

ReplyLog::~ReplyLog() { Stop(); }

void ReplyLog::Stop() {
  {
    absl::MutexLock lock(&mu_);
    if (std::exchange(stop_, true)) return;
    for (const auto& [id, reply] : replies_) reply->Abandon();
  }
  keeper_.join();
}

ApiResult<ReplyLog::Opened> ReplyLog::Open(const std::string& id, const std::string& fingerprint,
                                           std::function<void(SharedReply&)> write) {
  absl::MutexLock lock(&mu_);
  if (std::shared_ptr<SharedReply> reply = Find(id)) {
    if (reply->fingerprint() != fingerprint) return kReused;
    auto reader = SharedReply::Join(reply);
    if (reader == nullptr) return kTooLong;
    return Opened{std::move(reader), /*first=*/false};
  }
  if (stop_) return kStopping;
  auto reply = std::make_shared<SharedReply>(clock_, options_, running_bytes_, fingerprint);
  Opened opened{SharedReply::Join(reply), /*first=*/true};
  if (!Start({id, reply}, std::move(write))) {
    return ApiError{503, "too many requests at once", "", "overloaded"};
  }
  replies_[id] = std::move(reply);
  return opened;
}

// A reply leaves replies_ after it was stored: it is always found in one place.
std::shared_ptr<SharedReply> ReplyLog::Find(const std::string& id) {
  const auto known = replies_.find(id);
  if (known != replies_.end() && !known->second->over()) return known->second;
  if (known != replies_.end() || store_ == nullptr) return nullptr;
  auto stored = store_->Load(id);
  if (!stored.ok()) {
    spdlog::warn("a stored reply can't be read, its request runs again: {}",
                 stored.status().ToString());
    return nullptr;
  }
  if (!stored->has_value()) return nullptr;
  return std::make_shared<SharedReply>(clock_, options_, running_bytes_, **std::move(stored));
}

bool ReplyLog::Start(const Written& run, std::function<void(SharedReply&)> write) {
  const auto place = running_.emplace(running_.end());
  try {
    *place = std::thread(
        [this, place, run, write = std::move(write)]() mutable { Write(place, run, write); });
    return true;
  } catch (const std::system_error& error) {
    spdlog::error("no thread for a request: {}", error.what());
    running_.erase(place);
    return false;
  }
}

void ReplyLog::Write(Threads::iterator place, const Written& run,
                     std::function<void(SharedReply&)>& write) {
  try {
    write(*run.reply);
  } catch (const std::exception& error) {
    spdlog::error("a request failed: {}", error.what());
    run.reply->Fail({500, "internal error", "", ""});
  }
  write = nullptr;  // before anybody waits for this thread
  absl::MutexLock lock(&mu_);
  finished_.splice(finished_.end(), running_, place);
  written_.push_back(run);
}

void ReplyLog::Keep() {
  for (bool done = false; !done;) {
    std::vector<Written> written;
    Threads finished;
    {
      absl::MutexLock lock(&mu_);
      mu_.AwaitWithTimeout(absl::Condition(this, &ReplyLog::HasWork), kSweep);
      written.swap(written_);
      finished.swap(finished_);
      done = stop_ && running_.empty();
    }
    for (std::thread& thread : finished) thread.join();
    Store(written);
    absl::MutexLock lock(&mu_);
    for (const auto& [id, reply] : written) {
      const auto known = replies_.find(id);
      if (known != replies_.end() && known->second == reply) replies_.erase(known);
    }
  }
}

// Also where there is nothing to add: then what is too old goes.
void ReplyLog::Store(const std::vector<Written>& written) {
  if (store_ == nullptr) return;
  std::vector<StoredReply> whole;
  for (const auto& [id, reply] : written) {
    if (auto stored = reply->Whole(id)) whole.push_back(*std::move(stored));
  }
  const absl::Status status = store_->Add(whole);
  if (!status.ok() && !store_failed_) {
    spdlog::warn("replies can't be stored; requests that are sent again will run again: {}",
                 status.ToString());
  }
  store_failed_ = !status.ok();
}

}  // namespace efedllm
