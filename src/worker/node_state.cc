#include "worker/node_state.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

constexpr size_t kMaxFileBytes = 64 << 10;

absl::StatusOr<int> LockFolder(const std::string& dir) {
  const std::string path = absl::StrCat(dir, "/lock");
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return ErrnoStatus(errno, "create", path);
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
  const int error = errno;
  close(fd);
  if (error != EWOULDBLOCK) return ErrnoStatus(error, "lock", path);
  return absl::FailedPreconditionError(
      absl::StrCat("another worker runs with ", dir, "; give this one a --state-dir of its own"));
}

absl::StatusOr<std::string> ReadOrMakeKey(const std::string& path) {
  absl::StatusOr<std::string> key = ReadFile(path, kMaxFileBytes);
  if (!absl::IsNotFound(key.status())) return key;
  key = NewNodeKey();
  RETURN_IF_ERROR(WriteFileAtomically(path, *key, 0600));
  return key;
}

}  // namespace

absl::StatusOr<std::unique_ptr<NodeState>> NodeState::Open(const std::string& dir) {
  RETURN_IF_ERROR(MakeDirectories(dir, 0700));
  ASSIGN_OR_RETURN(const int lock, LockFolder(dir));
  std::unique_ptr<NodeState> state(new NodeState(dir, lock));
  const std::string key_path = absl::StrCat(dir, "/node.key");
  ASSIGN_OR_RETURN(state->key_pem_, ReadOrMakeKey(key_path));
  const absl::StatusOr<NodeId> node = NodeOfKey(state->key_pem_);
  if (!node.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat(key_path, " is damaged (", node.status().message(),
                     "): restore it, or remove it and join with a token as a new node"));
  }
  state->node_ = *node;
  return state;
}

NodeState::~NodeState() { close(lock_); }

std::string NodeState::weights_dir() const { return absl::StrCat(dir_, "/weights"); }

std::optional<Identity> NodeState::LoadIdentity() const {
  const absl::StatusOr<std::string> certificate =
      ReadFile(absl::StrCat(dir_, "/node.crt"), kMaxFileBytes);
  const absl::StatusOr<std::string> ca = ReadFile(absl::StrCat(dir_, "/ca.crt"), kMaxFileBytes);
  if (absl::IsNotFound(certificate.status()) || absl::IsNotFound(ca.status())) return std::nullopt;
  absl::Status status = certificate.ok() ? ca.status() : certificate.status();
  if (status.ok()) {
    absl::StatusOr<Identity> identity = MakeIdentity(key_pem_, *certificate, *ca);
    if (identity.ok()) return *std::move(identity);
    status = identity.status();
  }
  spdlog::warn("the certificate in {} is of no use: {}", dir_, std::string(status.message()));
  return std::nullopt;
}

absl::StatusOr<Identity> NodeState::SaveIdentity(absl::string_view certificate_der,
                                                 absl::string_view ca_pem) {
  ASSIGN_OR_RETURN(Identity identity, MakeIdentity(key_pem_, certificate_der, ca_pem));
  RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(dir_, "/ca.crt"), ca_pem, 0644));
  RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(dir_, "/node.crt"), certificate_der, 0644));
  return identity;
}

}  // namespace efedllm
