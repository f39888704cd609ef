#include <cinttypes>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "app/ctl_ledger_parts.h"
#include "app/local_run.h"
#include "cluster/ledger_head_json.h"
#include "common/sha256.h"
#include "common/status_macros.h"
#include "incentive/ledger_verify.h"

namespace efedllm {
namespace {

struct VerifyFlags {
  LedgerFlags ledger;
  std::vector<std::string> heads;
  std::string key;
};

nlohmann::json ToJson(const LedgerVerification& v, const std::string& file, double seconds) {
  nlohmann::json json = {{"file", file},
                         {"ok", !v.fault.has_value()},
                         {"ledger", ToHex(v.head.ledger)},
                         {"entries", v.head.size},
                         {"root", ToHex(v.head.root)},
                         {"chain", ToHex(v.head.chain)},
                         {"pages", v.seals.pages},
                         {"unsealed_pages", v.seals.unsealed},
                         {"all_bytes_checked", v.all_bytes_checked},
                         {"signed_heads", v.signed_heads},
                         {"kept_heads", v.kept_heads},
                         {"issued_micros", v.issued},
                         {"in_escrow_micros", v.in_escrow},
                         {"with_nodes_micros", v.with_nodes},
                         {"with_owners_micros", v.with_owners},
                         {"with_api_keys_micros", v.with_keys},
                         {"penalties_micros", v.penalties},
                         {"pending_entries", v.open_work},
                         {"seconds", seconds}};
  json["key"] = v.key.has_value() ? nlohmann::json(PublicKeyHex(*v.key)) : nlohmann::json();
  if (v.fault.has_value()) {
    json["fault"] = {{"what", v.fault->what}, {"key", v.fault->key}};
    json["fault"]["entry"] =
        v.fault->entry.has_value() ? nlohmann::json(*v.fault->entry) : nlohmann::json();
  }
  return json;
}

void PrintFacts(const LedgerVerification& v, double seconds) {
  absl::PrintF("%d entries, %d signed heads, %d pages; %.2f s\n", v.head.size,
               v.signed_heads + v.kept_heads, v.seals.pages, seconds);
  absl::PrintF("ledger  %s\nchain   %s\nroot    %s\n", ToHex(v.head.ledger), ToHex(v.head.chain),
               ToHex(v.head.root));
  if (v.key.has_value()) absl::PrintF("key     %s\n", PublicKeyHex(*v.key));
  absl::PrintF(
      "credits: %s issued = %s in escrow (%d pending) + %s with nodes + %s with owners\n"
      "         + %s with API keys + %s in penalties\n",
      FormatCredits(v.issued), FormatCredits(v.in_escrow), v.open_work, FormatCredits(v.with_nodes),
      FormatCredits(v.with_owners), FormatCredits(v.with_keys), FormatCredits(v.penalties));
  if (!v.all_bytes_checked) {
    absl::PrintF(
        "A log lies beside the file: its writer runs, or was killed. It was read too; for a proof "
        "of\nevery byte take a copy by `efedllm-ctl ledger backup`.\n");
  } else if (v.seals.unsealed > 0) {
    absl::PrintF(
        "%d pages have no seal: another program than eFedLLM wrote them last. Their entries are "
        "proven,\ntheir unused bytes are not; the coordinator's next start seals them.\n",
        v.seals.unsealed);
  }
}

std::string FaultText(const LedgerFault& fault, const std::string& file) {
  if (!fault.entry.has_value()) return absl::StrCat(file, ": ", fault.what);
  return absl::StrCat(file, ": first bad entry: ", *fault.entry,
                      fault.key.empty() ? "" : absl::StrCat(" (", fault.key, ")"), ": ",
                      fault.what);
}

absl::Status RunVerify(const VerifyFlags& flags) {
  ASSIGN_OR_RETURN(const std::string file, LedgerFile(flags.ledger));
  VerifyOptions options;
  if (!flags.key.empty()) {
    ASSIGN_OR_RETURN(options.signer, ParsePublicKey(flags.key));
  }
  ASSIGN_OR_RETURN(options.heads, ReadHeads(flags.heads, options.signer));
  const absl::Time start = absl::Now();
  ASSIGN_OR_RETURN(const LedgerVerification verification, VerifyLedger(file, options));
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  if (flags.ledger.json) {
    std::printf("%s\n", ToJson(verification, file, seconds).dump().c_str());
  } else if (!verification.fault.has_value()) {
    absl::PrintF("%s is sound.\n", file);
    PrintFacts(verification, seconds);
  }
  if (!verification.fault.has_value()) return absl::OkStatus();
  return absl::DataLossError(FaultText(*verification.fault, file));
}

absl::Status RunHead(const LedgerFlags& flags) {
  ASSIGN_OR_RETURN(const std::unique_ptr<LedgerReader> reader, OpenLedgerReader(flags));
  ASSIGN_OR_RETURN(const std::optional<SignedLedgerHead> head, reader->LatestHead());
  if (!head.has_value()) return absl::NotFoundError("no head of this ledger was signed yet");
  std::printf("%s\n", HeadToJson(*head).c_str());
  return absl::OkStatus();
}

}  // namespace

void AddLedgerVerifyCommand(CLI::App& ledger, int& exit_code) {
  auto flags = std::make_shared<VerifyFlags>();
  CLI::App* command = ledger.add_subcommand(
      "verify",
      "Prove a ledger, offline: every byte of the file is as it was written, every entry hashes "
      "to\n"
      "what the chain says and sums to zero, nothing is paid twice or from nothing, balances are\n"
      "what the entries add up to, and every signed head is of this history. Needs no coordinator\n"
      "and changes nothing.");
  AddLedgerFlags(*command, flags->ledger,
                 "{\"ok\", \"entries\", \"root\", \"fault\": {\"entry\", \"key\", \"what\"}, ...}");
  command->add_option(
      "--heads", flags->heads,
      "Signed heads that were kept elsewhere: files with one JSON object a line (as\n"
      "`efedllm-ctl ledger head` prints), or a worker's state folder. The ledger must\n"
      "continue each of them; one that it does not continue proves a fork");
  command->add_option(
      "--key", flags->key,
      "The coordinator's public key, 64 hex digits: all heads must be signed by it");
  command->footer(
      "Exit codes: 0 all is proven; 1 it is not: stderr names the first bad entry, or what else "
      "is\n"
      "wrong; 2 wrong usage.\n\n"
      "Example: efedllm-ctl ledger verify --file ledger-2026-11-23.db --heads kept-heads.jsonl");
  OnCommand(*command, exit_code, [flags] { return RunVerify(*flags); });
}

void AddLedgerHeadCommand(CLI::App& ledger, int& exit_code) {
  auto flags = std::make_shared<LedgerFlags>();
  CLI::App* command = ledger.add_subcommand(
      "head",
      "Print the newest head that the coordinator signed, as a line of JSON to keep elsewhere: "
      "who\n"
      "has it can prove later, with `verify --heads`, that history was not written anew.");
  AddLedgerFlags(*command, *flags, "The same: it is always JSON");
  command->footer("Example: efedllm-ctl ledger head >> kept-heads.jsonl");
  OnCommand(*command, exit_code, [flags] { return RunHead(*flags); });
}

}  // namespace efedllm
