// What a worker keeps between runs, in its state folder:
//
//   lock       held while the worker runs, so that two never share a folder
//   node.key   the node's Ed25519 key (0600), made at the first start: it is who the node is
//   node.crt   its certificate, DER
//   ca.crt     the CA of the coordinator that it enrolled with
//   weights/   model/weight_cache.h
//   rows       kept for audits (kept_rows.h), without a name while the worker runs
//   receipts   those that the coordinator has countersigned (receipt_writer.h)
//   ledger-heads/  of the coordinator's ledger (ledger_heads.h)
#ifndef EFEDLLM_WORKER_NODE_STATE_H_
#define EFEDLLM_WORKER_NODE_STATE_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/ids.h"
#include "net/credentials.h"

namespace efedllm {

// Not thread-safe.
class NodeState {
 public:
  // Makes the folder (0700) and the key where they are missing. FailedPrecondition: another worker
  // runs with this folder.
  static absl::StatusOr<std::unique_ptr<NodeState>> Open(const std::string& dir);
  ~NodeState();  // lets go of the lock

  NodeState(const NodeState&) = delete;
  NodeState& operator=(const NodeState&) = delete;

  NodeId node() const { return node_; }
  const std::string& key_pem() const { return key_pem_; }
  std::string weights_dir() const;

  // nullopt: the node has not enrolled, or what is there is damaged (which is logged).
  std::optional<Identity> LoadIdentity() const;
  // Both come from a peer: InvalidArgument if they are not for this node's key and by this CA.
  absl::StatusOr<Identity> SaveIdentity(absl::string_view certificate_der,
                                        absl::string_view ca_pem);

 private:
  NodeState(std::string dir, int lock) : dir_(std::move(dir)), lock_(lock) {}

  const std::string dir_;
  const int lock_;
  NodeId node_;
  std::string key_pem_;
};

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_NODE_STATE_H_
