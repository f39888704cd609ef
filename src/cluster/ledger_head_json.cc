#include "cluster/ledger_head_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace efedllm {
namespace {

template <class Array>
std::string Hex(const Array& bytes) {
  return absl::BytesToHexString({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

template <class Array>
bool FromHex(absl::string_view hex, Array& bytes) {
  const bool digits = std::all_of(hex.begin(), hex.end(), [](char c) {
    return absl::ascii_isxdigit(static_cast<unsigned char>(c));
  });
  if (hex.size() != 2 * bytes.size() || !digits) return false;
  const std::string raw = absl::HexStringToBytes(hex);
  std::copy(raw.begin(), raw.end(), bytes.begin());
  return true;
}

bool ReadHead(const nlohmann::json& json, SignedLedgerHead& head) {
  const auto hex = [&](const char* name, auto& bytes) {
    const auto found = json.find(name);
    return found != json.end() && found->is_string() &&
           FromHex(found->get_ref<const std::string&>(), bytes);
  };
  const auto number = [&](const char* name, auto& value) {
    const auto found = json.find(name);
    if (found == json.end() || !found->is_number_integer()) return false;
    found->get_to(value);
    return true;
  };
  return json.is_object() && hex("ledger", head.head.ledger) && hex("root", head.head.root) &&
         hex("chain", head.head.chain) && hex("key", head.key) &&
         hex("signature", head.signature) && number("size", head.head.size) &&
         json["size"].is_number_unsigned() && number("time_micros", head.head.time_micros);
}

}  // namespace

std::string HeadToJson(const SignedLedgerHead& head) {
  return nlohmann::json{{"ledger", Hex(head.head.ledger)},      {"size", head.head.size},
                        {"root", Hex(head.head.root)},          {"chain", Hex(head.head.chain)},
                        {"time_micros", head.head.time_micros}, {"key", Hex(head.key)},
                        {"signature", Hex(head.signature)}}
      .dump();
}

absl::StatusOr<std::vector<SignedLedgerHead>> ParseHeads(absl::string_view text) {
  std::vector<SignedLedgerHead> heads;
  size_t number = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    const nlohmann::json json =
        nlohmann::json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
    SignedLedgerHead& head = heads.emplace_back();
    if (!ReadHead(json, head)) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", number, " is not a signed head of a ledger"));
    }
  }
  return heads;
}

absl::StatusOr<PublicKey> ParsePublicKey(absl::string_view hex) {
  PublicKey key;
  if (FromHex(hex, key)) return key;
  return absl::InvalidArgumentError("a public key has 64 hex digits");
}

std::string PublicKeyHex(const PublicKey& key) { return Hex(key); }

}  // namespace efedllm
