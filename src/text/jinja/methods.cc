// FindMethod and CallMethod: the methods of Python's str, list and dict that templates call.
#include <algorithm>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "text/char_class.h"
#include "text/jinja/builtins.h"
#include "text/jinja/marked_string_ops.h"
#include "text/python_text.h"
#include "text/utf8.h"

namespace efedllm::jinja {
namespace {

using Result = absl::StatusOr<Value>;
using Implementation = Result (*)(const Value& self, const Arguments& arguments, Runtime& runtime);

struct Entry {
  absl::string_view name;
  Implementation call;
};

Value Strings(std::vector<MarkedText> texts, Runtime& runtime) {
  std::vector<Value> items;
  items.reserve(texts.size());
  for (MarkedText& text : texts) items.push_back(runtime.String(std::move(text)));
  return runtime.NewList(std::move(items));
}

template <Ends kEnds>
Result CallStrip(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"chars"}));
  ASSIGN_OR_RETURN(const MarkedText* chars, bound.Text(0, nullptr));
  return runtime.String(Strip(self.text(), kEnds, chars));
}

template <std::vector<MarkedText> (*kSplit)(const MarkedText&, const MarkedText*, int64_t)>
Result CallSplit(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"sep", "maxsplit"}));
  ASSIGN_OR_RETURN(const MarkedText* separator, bound.Text(0, nullptr));
  ASSIGN_OR_RETURN(const int64_t most, bound.Integer(1, -1));
  if (separator != nullptr && separator->empty()) {
    return absl::InvalidArgumentError("a string can't be split at \"\"");
  }
  if (!runtime.Reserve(self.text().size() * sizeof(MarkedText))) return runtime.status();
  return Strings(kSplit(self.text(), separator, most), runtime);
}

Result CallSplitLines(const Value& self, const Arguments& arguments, Runtime& runtime) {
  RETURN_IF_ERROR(BoundArguments::Bind(arguments, {}).status());
  if (!runtime.Reserve(self.text().size() * sizeof(MarkedText))) return runtime.status();
  return Strings(SplitLines(self.text()), runtime);
}

Result CallReplace(const Value& self, const Arguments& arguments, Runtime& runtime) {
  return CallFilter("replace", self, arguments, runtime);
}

template <bool (*kMatches)(absl::string_view, absl::string_view) noexcept>
Result CallMatch(const Value& self, const Arguments& arguments, Runtime& /*runtime*/) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"affix"}));
  if (bound[0].list() != nullptr) {  // any of a tuple
    for (const Value& affix : bound[0].list()->items) {
      ASSIGN_OR_RETURN(const MarkedText* text, StringOf(affix, "startswith or endswith"));
      if (kMatches(self.bytes(), text->bytes())) return Value(true);
    }
    return Value(false);
  }
  ASSIGN_OR_RETURN(const MarkedText* affix, StringOf(bound[0], "startswith or endswith"));
  return Value(kMatches(self.bytes(), affix->bytes()));
}

template <MarkedText (*kMap)(const MarkedText&)>
Result CallMap(const Value& self, const Arguments& arguments, Runtime& runtime) {
  RETURN_IF_ERROR(BoundArguments::Bind(arguments, {}).status());
  return runtime.String(kMap(self.text()));
}

MarkedText TitleOfWords(const MarkedText& text) {
  return Title(text, [](char32_t c) { return ClassOf(c) != CharClass::kLetter; });
}

template <bool kFromEnd>
Result CallFind(const Value& self, const Arguments& arguments, Runtime& /*runtime*/) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"sub"}));
  ASSIGN_OR_RETURN(const MarkedText* part, StringOf(bound[0], "find"));
  const absl::string_view text = self.bytes();
  const size_t found = kFromEnd ? text.rfind(part->bytes()) : text.find(part->bytes());
  if (found == absl::string_view::npos) return Value(int64_t{-1});
  return Value(static_cast<int64_t>(CountCharacters(text.substr(0, found))));
}

Result CallCount(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"sub"}));
  if (self.list() != nullptr) {
    const auto& items = self.list()->items;
    return Value(
        static_cast<int64_t>(std::count_if(items.begin(), items.end(), [&](const Value& item) {
          return Equals(item, bound[0], runtime);
        })));
  }
  ASSIGN_OR_RETURN(const MarkedText* part, StringOf(bound[0], "count"));
  if (part->empty()) return Value(static_cast<int64_t>(CountCharacters(self.bytes()) + 1));
  int64_t count = 0;
  for (size_t at = self.bytes().find(part->bytes()); at != absl::string_view::npos;
       at = self.bytes().find(part->bytes(), at + part->size())) {
    ++count;
  }
  return Value(count);
}

template <bool (*kIs)(CharClass)>
Result CallIs(const Value& self, const Arguments& arguments, Runtime& /*runtime*/) {
  RETURN_IF_ERROR(BoundArguments::Bind(arguments, {}).status());
  absl::string_view rest = self.bytes();
  bool all = !rest.empty();
  while (all && !rest.empty()) {
    const Utf8Char c = DecodeUtf8(rest);
    all = kIs(IsPythonSpace(c.code_point) ? CharClass::kSpace : ClassOf(c.code_point));
    rest.remove_prefix(c.bytes);
  }
  return Value(all);
}
bool IsLetter(CharClass c) { return c == CharClass::kLetter; }
bool IsNumber(CharClass c) { return c == CharClass::kNumber; }
bool IsLetterOrNumber(CharClass c) { return IsLetter(c) || IsNumber(c); }
bool IsSpace(CharClass c) { return c == CharClass::kSpace; }

Result CallRemovePrefix(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"prefix"}));
  ASSIGN_OR_RETURN(const MarkedText* prefix, StringOf(bound[0], "removeprefix"));
  if (!absl::StartsWith(self.bytes(), prefix->bytes())) return self;
  return runtime.String(self.text().Substr(prefix->size(), self.text().size()));
}

Result CallRemoveSuffix(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"suffix"}));
  ASSIGN_OR_RETURN(const MarkedText* suffix, StringOf(bound[0], "removesuffix"));
  if (!absl::EndsWith(self.bytes(), suffix->bytes())) return self;
  return runtime.String(self.text().Substr(0, self.text().size() - suffix->size()));
}

Result CallJoin(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"items"}));
  return CallFilter("join", bound[0], {{self}, {}}, runtime);
}

constexpr Entry kStringMethods[] = {
    {"strip", CallStrip<Ends::kBoth>},
    {"lstrip", CallStrip<Ends::kStart>},
    {"rstrip", CallStrip<Ends::kEnd>},
    {"split", CallSplit<Split>},
    {"rsplit", CallSplit<SplitFromEnd>},
    {"splitlines", CallSplitLines},
    {"replace", CallReplace},
    {"startswith", CallMatch<absl::StartsWith>},
    {"endswith", CallMatch<absl::EndsWith>},
    {"upper", CallMap<Upper>},
    {"lower", CallMap<Lower>},
    {"capitalize", CallMap<Capitalize>},
    {"title", CallMap<TitleOfWords>},
    {"find", CallFind<false>},
    {"rfind", CallFind<true>},
    {"count", CallCount},
    {"join", CallJoin},
    {"removeprefix", CallRemovePrefix},
    {"removesuffix", CallRemoveSuffix},
    {"isalpha", CallIs<IsLetter>},
    {"isdigit", CallIs<IsNumber>},
    {"isnumeric", CallIs<IsNumber>},
    {"isalnum", CallIs<IsLetterOrNumber>},
    {"isspace", CallIs<IsSpace>},
};

Result CallAppend(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"item"}));
  runtime.Reserve(2 * sizeof(Value));
  self.list()->items.push_back(bound[0]);
  return Value(None());
}

Result CallExtend(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"items"}));
  ASSIGN_OR_RETURN(const std::vector<Value> more, ItemsOf(bound[0], runtime));
  if (!runtime.Reserve(2 * more.size() * sizeof(Value))) return runtime.status();
  self.list()->items.insert(self.list()->items.end(), more.begin(), more.end());
  return Value(None());
}

Result CallListPop(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"index"}));
  std::vector<Value>& items = self.list()->items;
  ASSIGN_OR_RETURN(int64_t index, bound.Integer(0, -1));
  if (index < 0) index += static_cast<int64_t>(items.size());
  if (index < 0 || index >= static_cast<int64_t>(items.size())) {
    return absl::InvalidArgumentError("pop: there is no such item");
  }
  runtime.Charge(items.size() / 8);
  const Value item = items[static_cast<size_t>(index)];
  items.erase(items.begin() + index);
  return item;
}

Result CallIndex(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"item"}));
  const std::vector<Value>& items = self.list()->items;
  for (size_t i = 0; i < items.size(); ++i) {
    if (Equals(items[i], bound[0], runtime)) return Value(static_cast<int64_t>(i));
  }
  return absl::InvalidArgumentError("index: the item is not in the list");
}

constexpr Entry kListMethods[] = {
    {"append", CallAppend}, {"extend", CallExtend}, {"pop", CallListPop},
    {"index", CallIndex},   {"count", CallCount},
};

Result CallItems(const Value& self, const Arguments& arguments, Runtime& runtime) {
  RETURN_IF_ERROR(BoundArguments::Bind(arguments, {}).status());
  return CallFilter("items", self, {}, runtime);
}

Result CallKeys(const Value& self, const Arguments& arguments, Runtime& runtime) {
  RETURN_IF_ERROR(BoundArguments::Bind(arguments, {}).status());
  ASSIGN_OR_RETURN(std::vector<Value> keys, ItemsOf(self, runtime));
  return runtime.NewList(std::move(keys));
}

Result CallValues(const Value& self, const Arguments& arguments, Runtime& runtime) {
  RETURN_IF_ERROR(BoundArguments::Bind(arguments, {}).status());
  std::vector<Value> values;
  for (const auto& entry : self.dict()->entries) values.push_back(entry.second);
  return runtime.NewList(std::move(values));
}

Result CallGet(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"key", "default"}));
  if (const Value* found = self.dict()->Find(bound[0], runtime)) return *found;
  return bound.Has(1) ? bound[1] : Value(None());
}

Result CallUpdate(const Value& self, const Arguments& arguments, Runtime& runtime) {
  Dict& dict = *self.dict();
  for (const Value& given : arguments.positional) {
    if (given.dict() == nullptr) return absl::InvalidArgumentError("update needs a dict");
    const auto entries = given.dict()->entries;  // it may be this very dict
    for (const auto& [key, value] : entries) dict.Set(key, value, runtime);
  }
  for (const auto& [name, value] : arguments.named) {
    dict.Set(runtime.String(std::string(name)), value, runtime);
  }
  return Value(None());
}

Result CallDictPop(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"key", "default"}));
  auto& entries = self.dict()->entries;
  for (auto entry = entries.begin(); entry != entries.end(); ++entry) {
    if (!Equals(entry->first, bound[0], runtime)) continue;
    const Value value = entry->second;
    entries.erase(entry);
    return value;
  }
  if (bound.Has(1)) return bound[1];
  return absl::InvalidArgumentError("pop: there is no such key");
}

constexpr Entry kDictMethods[] = {
    {"items", CallItems}, {"keys", CallKeys},     {"values", CallValues},
    {"get", CallGet},     {"update", CallUpdate}, {"pop", CallDictPop},
};

Result CallCycle(const Value& self, const Arguments& arguments, Runtime& /*runtime*/) {
  if (arguments.positional.empty()) return absl::InvalidArgumentError("loop.cycle needs items");
  const size_t index = self.As<const Loop*>()->index0;
  return arguments.positional[index % arguments.positional.size()];
}

constexpr Entry kLoopMethods[] = {{"cycle", CallCycle}};

absl::Span<const Entry> MethodsOf(const Value& self) {
  if (self.IsString()) return kStringMethods;
  if (self.list() != nullptr) return kListMethods;
  if (self.dict() != nullptr) return kDictMethods;
  if (self.Is<const Loop*>()) return kLoopMethods;
  return {};
}

const Entry* FindEntry(const Value& self, absl::string_view name) {
  for (const Entry& entry : MethodsOf(self)) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

}  // namespace

Value FindMethod(const Value& self, absl::string_view name, Runtime& runtime) {
  const Entry* entry = FindEntry(self, name);
  if (entry == nullptr) return Value();
  return static_cast<const Method*>(runtime.New(Method{self, entry->name}));
}

absl::StatusOr<Value> CallMethod(const Method& method, const Arguments& arguments,
                                 Runtime& runtime) {
  const Entry* entry = FindEntry(method.self, method.name);
  if (entry == nullptr) return absl::InvalidArgumentError("there is no such method");
  if (method.self.IsString()) runtime.ChargeBytes(method.self.text().size());
  RETURN_IF_ERROR(runtime.status());
  Result result = entry->call(method.self, arguments, runtime);
  if (result.ok()) return result;
  return absl::Status(result.status().code(),
                      absl::StrCat(method.name, "(): ", result.status().message()));
}

}  // namespace efedllm::jinja
