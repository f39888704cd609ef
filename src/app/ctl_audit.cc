#include "app/ctl_audit.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "app/coord_options.h"
#include "app/daemon.h"
#include "app/local_run.h"
#include "common/ids.h"
#include "common/logging.h"
#include "common/sha256.h"
#include "common/status_macros.h"
#include "coordinator/audit_evidence.h"
#include "incentive/ledger.h"

namespace efedllm {
namespace {

struct AuditFlags {
  std::string state_dir;
  std::string id;
  std::string node;
  size_t limit = 20;
  bool json = false;
};

// A file of evidence, and what the ledger says of it.
struct Evidence {
  std::string text;
  nlohmann::json json;
  std::optional<uint64_t> entry;  // of the ledger
  bool as_booked = false;         // its hash is the one that stands there
};

std::string TextOf(const nlohmann::json& json, const char* name) {
  const auto found = json.find(name);
  if (found == json.end()) return "";
  if (!found->is_string()) return found->dump();
  return Printable(found->get_ref<const std::string&>(), 500);
}

std::string Range(const nlohmann::json& json, const char* name) {
  const auto found = json.find(name);
  if (found == json.end() || !found->is_array() || found->size() != 2) return "-";
  return absl::StrCat("[", (*found)[0].dump(), ",", (*found)[1].dump(), ")");
}

class EvidenceReader {
 public:
  static absl::StatusOr<EvidenceReader> Open(const AuditFlags& flags) {
    std::string state_dir = flags.state_dir;
    if (state_dir.empty()) {
      ASSIGN_OR_RETURN(state_dir, DefaultStateDir(ThisUser(), kCoordinatorState));
    }
    EvidenceReader reader(state_dir);
    absl::StatusOr<std::unique_ptr<LedgerReader>> ledger =
        LedgerReader::Open(LedgerPath(state_dir));
    if (ledger.ok()) {
      reader.ledger_ = *std::move(ledger);
    } else if (!absl::IsNotFound(ledger.status())) {
      return ledger.status();
    }
    return reader;
  }

  absl::StatusOr<std::vector<std::string>> List() const { return store_.List(); }

  absl::StatusOr<Evidence> Read(const std::string& id) const {
    Evidence evidence;
    absl::StatusOr<std::string> text = store_.Get(id);
    if (absl::IsNotFound(text.status())) {
      return absl::NotFoundError(
          absl::StrCat("there is no evidence ", id, ": see `efedllm-ctl audit list`"));
    }
    RETURN_IF_ERROR(text.status());
    evidence.text = *std::move(text);
    evidence.json = nlohmann::json::parse(evidence.text, nullptr, /*allow_exceptions=*/false);
    if (!evidence.json.is_object()) {
      return absl::DataLossError(absl::StrCat("the file of evidence ", id, " is damaged"));
    }
    RETURN_IF_ERROR(CompareWithLedger(id, evidence));
    return evidence;
  }

 private:
  explicit EvidenceReader(const std::string& state_dir)
      : store_(absl::StrCat(state_dir, "/evidence")) {}

  absl::Status CompareWithLedger(const std::string& id, Evidence& evidence) const {
    if (ledger_ == nullptr) return absl::OkStatus();
    ASSIGN_OR_RETURN(const std::optional<RecordedEntry> booked,
                     ledger_->Find(absl::StrCat("evidence:", id)));
    if (!booked) return absl::OkStatus();
    evidence.entry = booked->number;
    const nlohmann::json memo = nlohmann::json::parse(booked->entry.memo, nullptr, false);
    const auto* bytes = reinterpret_cast<const uint8_t*>(evidence.text.data());
    evidence.as_booked =
        memo.is_object() && TextOf(memo, "digest") == ToHex(Sha256({bytes, evidence.text.size()}));
    return absl::OkStatus();
  }

  EvidenceStore store_;
  std::unique_ptr<LedgerReader> ledger_;  // null: there is none
};

nlohmann::json WithLedger(const Evidence& evidence) {
  nlohmann::json json = evidence.json;
  json["ledger"] = {{"entry", nullptr}, {"as_booked", evidence.as_booked}};
  if (evidence.entry) json["ledger"]["entry"] = *evidence.entry;
  return json;
}

std::string LedgerNote(const Evidence& evidence) {
  if (!evidence.entry) return "the ledger has no entry of it";
  if (!evidence.as_booked) {
    return absl::StrCat("NOT the file whose hash stands in entry ", *evidence.entry,
                        " of the ledger: somebody changed it");
  }
  return absl::StrCat("its hash stands in entry ", *evidence.entry, " of the ledger");
}

absl::Status RunList(const AuditFlags& flags) {
  ASSIGN_OR_RETURN(const EvidenceReader reader, EvidenceReader::Open(flags));
  ASSIGN_OR_RETURN(const std::vector<std::string> ids, reader.List());
  std::vector<Evidence> all;
  for (const std::string& id : ids) {
    if (!absl::StartsWith(id, flags.node)) continue;
    ASSIGN_OR_RETURN(Evidence evidence, reader.Read(id));
    all.push_back(std::move(evidence));
  }
  // Dates, as they are written, are in order of time.
  std::stable_sort(all.begin(), all.end(), [](const Evidence& a, const Evidence& b) {
    return TextOf(a.json, "found") < TextOf(b.json, "found");
  });
  if (all.size() > flags.limit) {
    all.erase(all.begin(), all.end() - static_cast<ptrdiff_t>(flags.limit));
  }
  if (flags.json) {
    nlohmann::json list = nlohmann::json::array();
    for (const Evidence& evidence : all) list.push_back(WithLedger(evidence));
    std::printf("%s\n", list.dump(2).c_str());
    return absl::OkStatus();
  }
  if (all.empty()) {
    std::printf("no chunk was proven wrong\n");
    return absl::OkStatus();
  }
  absl::PrintF("%-20s  %-16s  %-9s  %-12s  %-32s  %s\n", "FOUND (UTC)", "NODE", "LAYERS",
               "POSITIONS", "ID", "WHAT");
  for (const Evidence& evidence : all) {
    const nlohmann::json& json = evidence.json;
    absl::PrintF("%-20s  %-16s  %-9s  %-12s  %-32s  %s\n", TextOf(json, "found"),
                 TextOf(json, "node"), Range(json, "layers"), Range(json, "positions"),
                 TextOf(json, "id"), TextOf(json, "summary"));
  }
  return absl::OkStatus();
}

void PrintDifference(const nlohmann::json& json) {
  const auto found = json.find("difference");
  if (found == json.end() || !found->is_object()) return;
  const nlohmann::json claimed = found->value("claimed", nlohmann::json::object());
  const nlohmann::json replayed = found->value("replayed", nlohmann::json::object());
  absl::PrintF("difference  %s: %s values in %s rows; the first at position %s, dimension %s\n",
               TextOf(*found, "pattern"), TextOf(*found, "values"), TextOf(*found, "rows"),
               TextOf(*found, "position"), TextOf(*found, "dimension"));
  absl::PrintF("            it claims %s (bits %s), the replay gives %s (bits %s): %s of the row\n",
               TextOf(claimed, "value"), TextOf(claimed, "bits"), TextOf(replayed, "value"),
               TextOf(replayed, "bits"), TextOf(*found, "relative"));
}

absl::Status RunShow(const AuditFlags& flags) {
  ASSIGN_OR_RETURN(const EvidenceReader reader, EvidenceReader::Open(flags));
  ASSIGN_OR_RETURN(const Evidence evidence, reader.Read(flags.id));
  if (flags.json) {
    std::printf("%s\n", WithLedger(evidence).dump(2).c_str());
    return absl::OkStatus();
  }
  const nlohmann::json& json = evidence.json;
  const nlohmann::json receipt = json.value("receipt", nlohmann::json::object());
  absl::PrintF("%s\n\n", TextOf(json, "summary"));
  absl::PrintF("found       %s\nnode        %s\nmodel       %s\n", TextOf(json, "found"),
               TextOf(json, "node"), TextOf(json, "model"));
  absl::PrintF("work        epoch %s, stage %s, layers %s, sequence %s, positions %s\n",
               TextOf(json, "epoch"), TextOf(json, "stage"), Range(json, "layers"),
               TextOf(json, "sequence"), Range(json, "positions"));
  absl::PrintF("receipt     %s, chunk %s, signed by the node\n", TextOf(receipt, "number"),
               TextOf(receipt, "chunk"));
  absl::PrintF("outputs     claimed  %s\n            replayed %s\n",
               TextOf(json.value("outputs", nlohmann::json::object()), "digest"),
               TextOf(json, "replayed_outputs"));
  PrintDifference(json);
  if (json.contains("outputs_missing")) {
    absl::PrintF("difference  not known: %s\n", TextOf(json, "outputs_missing"));
  }
  for (const nlohmann::json& verifier : json.value("verifiers", nlohmann::json::array())) {
    absl::PrintF("verifier    %s: %s\n", TextOf(verifier, "node"), TextOf(verifier, "answer"));
  }
  const nlohmann::json suspect = json.value("suspect", nlohmann::json::object());
  if (suspect.contains("answer")) {
    absl::PrintF("asked again %s%s\n", TextOf(suspect, "answer"),
                 suspect.contains("first_layer") ? absl::StrCat("; its rows differ behind layer ",
                                                                TextOf(suspect, "first_layer"))
                                                 : "");
  }
  absl::PrintF("file        %s\n", LedgerNote(evidence));
  return absl::OkStatus();
}

void AddStateDir(CLI::App& command, AuditFlags& flags) {
  command.add_option("--state-dir", flags.state_dir,
                     "The coordinator's, which may be running; default: as efedllm-coord's");
}

}  // namespace

void AddAuditCommand(CLI::App& root, int& exit_code) {
  CLI::App* audit = root.add_subcommand(
      "audit", "Evidence of work that was computed again and found to be wrong");
  audit->require_subcommand(1);

  auto list_flags = std::make_shared<AuditFlags>();
  CLI::App* list = audit->add_subcommand("list", "What there is, the newest last");
  AddStateDir(*list, *list_flags);
  list->add_option("--node", list_flags->node, "Only of this node: its id, or how it begins");
  list->add_option("-n,--limit", list_flags->limit, "How many of the newest")
      ->check(CLI::Range(size_t{1}, size_t{1} << 20))
      ->capture_default_str();
  list->add_flag("--json", list_flags->json,
                 "[{\"id\", \"found\", \"node\", \"summary\", \"difference\", \"ledger\": "
                 "{\"entry\", \"as_booked\"}, ...}]");
  OnCommand(*list, exit_code, [list_flags] { return RunList(*list_flags); });

  auto show_flags = std::make_shared<AuditFlags>();
  CLI::App* show = audit->add_subcommand(
      "show",
      "One of them: what the node signed, what its inputs give when they are computed again, where "
      "the\n"
      "two differ first, what verifiers and the node itself said, and whether the file is the one "
      "that\n"
      "the ledger knows.");
  AddStateDir(*show, *show_flags);
  show->add_option("ID", show_flags->id, "As `efedllm-ctl audit list` shows it")->required();
  show->add_flag("--json", show_flags->json, "All of it, with the signed receipt and both rows");
  OnCommand(*show, exit_code, [show_flags] { return RunShow(*show_flags); });
}

}  // namespace efedllm
