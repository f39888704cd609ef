#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "app/ctl_ledger_parts.h"
#include "app/local_run.h"
#include "cluster/ledger_head_json.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/sha256.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

constexpr size_t kMaxHeadsBytes = size_t{256} << 20;
constexpr char kWorkersFolder[] = "ledger-heads";  // in a worker's state folder

struct HeadsFlags {
  std::vector<std::string> paths;
  std::string key;
  bool json = false;
};

absl::Status AddFile(const std::string& path, std::vector<SignedLedgerHead>& heads) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxHeadsBytes));
  absl::StatusOr<std::vector<SignedLedgerHead>> more = ParseHeads(text);
  if (!more.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", more.status().message()));
  }
  heads.insert(heads.end(), more->begin(), more->end());
  return absl::OkStatus();
}

// A worker that has changed its coordinator keeps heads of several: key says whose count.
absl::Status AddFolder(const std::string& path, const std::optional<PublicKey>& key,
                       std::vector<SignedLedgerHead>& heads) {
  std::error_code error;
  const std::string inner = absl::StrCat(path, "/", kWorkersFolder);
  const std::string folder = std::filesystem::is_directory(inner, error) ? inner : path;
  std::set<std::string> files;
  for (std::filesystem::directory_iterator at(folder, error), end; !error && at != end;
       at.increment(error)) {
    if (at->path().extension() == ".jsonl") files.insert(at->path().string());
  }
  if (error) return ErrnoStatus(error.value(), "read", folder);
  if (files.empty()) {
    return absl::NotFoundError(absl::StrCat(folder, " holds no heads (no *.jsonl)"));
  }
  std::vector<SignedLedgerHead> all;
  for (const std::string& file : files) RETURN_IF_ERROR(AddFile(file, all));
  std::copy_if(all.begin(), all.end(), std::back_inserter(heads),
               [&](const SignedLedgerHead& head) { return !key || head.key == *key; });
  return absl::OkStatus();
}

// Two heads that can't both be true.
struct Fork {
  SignedLedgerHead first, second;
  std::string what;
};

// The first two of these that prove it without a ledger. All are signed, by one key.
std::optional<Fork> FindFork(const std::vector<SignedLedgerHead>& heads) {
  std::map<uint64_t, const SignedLedgerHead*> by_size;
  for (const SignedLedgerHead& head : heads) {
    if (head.head.ledger != heads.front().head.ledger) {
      return Fork{heads.front(), head, "the same key signed heads of two ledgers"};
    }
    const auto [found, added] = by_size.emplace(head.head.size, &head);
    if (added) continue;
    const LedgerHead& other = found->second->head;
    if (other.root != head.head.root || other.chain != head.head.chain) {
      return Fork{
          *found->second, head,
          absl::StrCat("the same key signed two histories of ", head.head.size, " entries")};
    }
  }
  return std::nullopt;
}

absl::Status RunHeads(const HeadsFlags& flags) {
  std::optional<PublicKey> key;
  if (!flags.key.empty()) {
    ASSIGN_OR_RETURN(key, ParsePublicKey(flags.key));
  }
  ASSIGN_OR_RETURN(const std::vector<SignedLedgerHead> heads, ReadHeads(flags.paths, key));
  if (heads.empty()) return absl::NotFoundError("there are no heads");
  const auto wrong = std::find_if(heads.begin(), heads.end(),
                                  [](const SignedLedgerHead& head) { return !IsSigned(head); });
  if (wrong != heads.end()) {
    return absl::DataLossError(absl::StrCat("the head of ", wrong->head.size,
                                            " entries does not have the signature of its key"));
  }
  const auto newest =
      std::max_element(heads.begin(), heads.end(),
                       [](const auto& a, const auto& b) { return a.head.size < b.head.size; });
  const std::optional<Fork> fork = FindFork(heads);
  if (flags.json) {
    nlohmann::json json = {{"heads", heads.size()},
                           {"key", PublicKeyHex(newest->key)},
                           {"ledger", ToHex(newest->head.ledger)},
                           {"entries", newest->head.size},
                           {"fork", nullptr}};
    if (fork) {
      json["fork"] = {{"what", fork->what},
                      {"heads",
                       {nlohmann::json::parse(HeadToJson(fork->first)),
                        nlohmann::json::parse(HeadToJson(fork->second))}}};
    }
    std::printf("%s\n", json.dump().c_str());
  } else {
    absl::PrintF("%d signed heads, the newest of %d entries (%s)\nkey     %s\nledger  %s\n",
                 heads.size(), newest->head.size,
                 FormatWallClock(absl::FromUnixMicros(newest->head.time_micros)),
                 PublicKeyHex(newest->key), ToHex(newest->head.ledger));
  }
  if (!fork) {
    if (!flags.json) {
      absl::PrintF(
          "No two of them prove a fork by themselves; against a copy of the ledger:\n"
          "efedllm-ctl ledger verify --file COPY --heads %s\n",
          flags.paths.front());
    }
    return absl::OkStatus();
  }
  return absl::DataLossError(absl::StrCat("a fork is proven: ", fork->what, ":\n",
                                          HeadToJson(fork->first), "\n", HeadToJson(fork->second)));
}

}  // namespace

absl::StatusOr<std::vector<SignedLedgerHead>> ReadHeads(const std::vector<std::string>& paths,
                                                        const std::optional<PublicKey>& key) {
  std::vector<SignedLedgerHead> heads;
  for (const std::string& path : paths) {
    std::error_code error;
    RETURN_IF_ERROR(std::filesystem::is_directory(path, error) ? AddFolder(path, key, heads)
                                                               : AddFile(path, heads));
  }
  std::set<PublicKey> keys;
  for (const SignedLedgerHead& head : heads) keys.insert(head.key);
  if (keys.size() > 1) {
    return absl::InvalidArgumentError(
        key ? "some of these heads are by another key than --key"
            : "these are heads of several coordinators: choose one with --key");
  }
  return heads;
}

void AddLedgerHeadsCommand(CLI::App& ledger, int& exit_code) {
  auto flags = std::make_shared<HeadsFlags>();
  CLI::App* command = ledger.add_subcommand(
      "heads",
      "Check heads that workers or people keep, without a ledger: their signatures, and whether "
      "two\n"
      "of them prove a fork by themselves.");
  command
      ->add_option("PATH", flags->paths,
                   "Files with a head a line, or folders: a worker's state folder, or copies of "
                   "its ledger-heads")
      ->required();
  command->add_option("--key", flags->key,
                      "The coordinator's public key, 64 hex digits: of folders, only heads by it");
  command->add_flag("--json", flags->json,
                    "{\"heads\", \"key\", \"ledger\", \"entries\", \"fork\": {\"what\", "
                    "\"heads\"} or null}");
  command->footer(
      "Exit codes: 0 no fork is proven; 1 one is, or a signature is wrong; 2 wrong usage.\n\n"
      "Example: efedllm-ctl ledger heads kept-heads.jsonl /var/lib/efedllm-worker");
  OnCommand(*command, exit_code, [flags] { return RunHeads(*flags); });
}

}  // namespace efedllm
