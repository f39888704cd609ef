#include <algorithm>
#include <limits>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/status_macros.h"
#include "text/jinja/builtins.h"
#include "text/jinja/filters.h"
#include "text/jinja/marked_string_ops.h"

namespace efedllm::jinja {
namespace {

using Result = absl::StatusOr<Value>;

// "a.b.0" or 0 of an item, as attribute= arguments name it. The item itself where there is none.
Value FindAttribute(Value item, const Value& path, Runtime& runtime) {
  if (path.Is<Undefined>() || path.Is<None>()) return item;
  if (!path.IsString()) return ItemOf(item, path, runtime);
  for (const absl::string_view part : absl::StrSplit(path.bytes(), '.')) {
    int64_t index = 0;
    item = absl::SimpleAtoi(part, &index)
               ? ItemOf(item, index, runtime)
               : ItemOf(item, runtime.String(std::string(part)), runtime);
    if (!runtime.ok()) return Value();
  }
  return item;
}

Result Length(const Value& self, const Arguments& arguments, Runtime& /*runtime*/) {
  RETURN_IF_ERROR(BoundArguments::Bind(arguments, {}).status());
  if (const std::optional<int64_t> length = LengthOf(self)) return Value(*length);
  return absl::InvalidArgumentError(absl::StrCat(self.kind_name(), " has no length"));
}

Result First(const Value& self, const Arguments& arguments, Runtime& runtime) {
  RETURN_IF_ERROR(BoundArguments::Bind(arguments, {}).status());
  if (self.list() == nullptr && self.dict() == nullptr) return ItemOf(self, int64_t{0}, runtime);
  ASSIGN_OR_RETURN(const std::vector<Value> items, ItemsOf(self, runtime));
  return items.empty() ? Value() : items.front();
}

Result Last(const Value& self, const Arguments& arguments, Runtime& runtime) {
  RETURN_IF_ERROR(BoundArguments::Bind(arguments, {}).status());
  if (self.list() == nullptr && self.dict() == nullptr) return ItemOf(self, int64_t{-1}, runtime);
  ASSIGN_OR_RETURN(const std::vector<Value> items, ItemsOf(self, runtime));
  return items.empty() ? Value() : items.back();
}

Result ToList(const Value& self, const Arguments& arguments, Runtime& runtime) {
  RETURN_IF_ERROR(BoundArguments::Bind(arguments, {}).status());
  ASSIGN_OR_RETURN(std::vector<Value> items, ItemsOf(self, runtime));
  return runtime.NewList(std::move(items));
}

Value PairsOf(const std::vector<std::pair<Value, Value>>& entries, Runtime& runtime) {
  std::vector<Value> pairs;
  for (const auto& [key, value] : entries) {
    if (!runtime.ok()) break;
    pairs.push_back(runtime.NewList({key, value}, /*is_tuple=*/true));
  }
  return runtime.NewList(std::move(pairs));
}

Result Items(const Value& self, const Arguments& arguments, Runtime& runtime) {
  RETURN_IF_ERROR(BoundArguments::Bind(arguments, {}).status());
  if (self.Is<Undefined>()) return runtime.NewList({});
  if (self.dict() == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("needs a dict, not ", self.kind_name()));
  }
  return PairsOf(self.dict()->entries, runtime);
}

// What sorting and comparing go by: strings in small letters unless case_sensitive.
Value SortKey(const Value& value, bool case_sensitive, Runtime& runtime) {
  // Copies of many long strings are made here: none once the budget is gone.
  if (!runtime.ok() || case_sensitive || !value.IsString()) return value;
  return runtime.String(Lower(value.text()));
}

// Orders items by their keys. InvalidArgument: keys that have no order.
struct Keyed {
  Value key;
  size_t index;
};
absl::Status SortKeys(std::vector<Keyed>& keys, bool reverse, Runtime& runtime) {
  bool comparable = true;
  std::stable_sort(keys.begin(), keys.end(), [&](const Keyed& a, const Keyed& b) {
    const std::optional<bool> less =
        reverse ? Less(b.key, a.key, runtime) : Less(a.key, b.key, runtime);
    comparable = comparable && less.has_value();
    return less.value_or(false);
  });
  return comparable ? runtime.status()
                    : absl::InvalidArgumentError("the values are of kinds that have no order");
}

Result Sort(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const auto bound,
                   BoundArguments::Bind(arguments, {"reverse", "case_sensitive", "attribute"}));
  ASSIGN_OR_RETURN(const std::vector<Value> items, ItemsOf(self, runtime));
  std::vector<Keyed> keys;
  for (const Value& item : items) {
    const Value key = FindAttribute(item, bound[2], runtime);
    keys.push_back({SortKey(key, bound.Bool(1, false), runtime), keys.size()});
  }
  RETURN_IF_ERROR(SortKeys(keys, bound.Bool(0, false), runtime));
  std::vector<Value> sorted;
  sorted.reserve(keys.size());
  for (const Keyed& key : keys) sorted.push_back(items[key.index]);
  return runtime.NewList(std::move(sorted));
}

Result DictSort(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const auto bound,
                   BoundArguments::Bind(arguments, {"case_sensitive", "by", "reverse"}));
  if (self.dict() == nullptr) return absl::InvalidArgumentError("needs a dict");
  const bool by_value = bound[1].IsString() && bound[1].bytes() == "value";
  const auto& entries = self.dict()->entries;
  std::vector<Keyed> keys;
  keys.reserve(entries.size());
  for (const auto& [key, value] : entries) {
    keys.push_back({SortKey(by_value ? value : key, bound.Bool(0, false), runtime), keys.size()});
  }
  RETURN_IF_ERROR(SortKeys(keys, bound.Bool(2, false), runtime));
  std::vector<std::pair<Value, Value>> sorted;
  sorted.reserve(keys.size());
  for (const Keyed& key : keys) sorted.push_back(entries[key.index]);
  return PairsOf(sorted, runtime);
}

template <bool kLargest>
Result Extreme(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const auto bound,
                   BoundArguments::Bind(arguments, {"case_sensitive", "attribute"}));
  ASSIGN_OR_RETURN(const std::vector<Value> items, ItemsOf(self, runtime));
  Value best;
  Value best_key;
  for (const Value& item : items) {
    const Value key =
        SortKey(FindAttribute(item, bound[1], runtime), bound.Bool(0, false), runtime);
    const std::optional<bool> better =
        &item == &items.front()
            ? true
            : (kLargest ? Less(best_key, key, runtime) : Less(key, best_key, runtime));
    if (!better.has_value()) {
      return absl::InvalidArgumentError("the values are of kinds that have no order");
    }
    if (!*better) continue;
    best = item;
    best_key = key;
  }
  return best;
}

Result Unique(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const auto bound,
                   BoundArguments::Bind(arguments, {"case_sensitive", "attribute"}));
  ASSIGN_OR_RETURN(const std::vector<Value> items, ItemsOf(self, runtime));
  std::vector<Value> seen;
  std::vector<Value> unique;
  for (const Value& item : items) {
    const Value key =
        SortKey(FindAttribute(item, bound[1], runtime), bound.Bool(0, false), runtime);
    const bool is_new = std::none_of(
        seen.begin(), seen.end(), [&](const Value& other) { return Equals(key, other, runtime); });
    RETURN_IF_ERROR(runtime.status());
    if (!is_new) continue;
    seen.push_back(key);
    unique.push_back(item);
  }
  return runtime.NewList(std::move(unique));
}

Result Reverse(const Value& self, const Arguments& arguments, Runtime& runtime) {
  RETURN_IF_ERROR(BoundArguments::Bind(arguments, {}).status());
  ASSIGN_OR_RETURN(std::vector<Value> items, ItemsOf(self, runtime));
  std::reverse(items.begin(), items.end());
  if (!self.IsString()) return runtime.NewList(std::move(items));
  MarkedText text;
  for (const Value& item : items) text.Append(item.text());
  return runtime.String(std::move(text));
}

Result Sum(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"attribute", "start"}));
  ASSIGN_OR_RETURN(const std::vector<Value> items, ItemsOf(self, runtime));
  int64_t whole = 0;
  double total = 0;
  bool is_whole = true;
  std::vector<Value> terms = {bound.Has(1) ? bound[1] : Value(int64_t{0})};
  for (const Value& item : items) terms.push_back(FindAttribute(item, bound[0], runtime));
  for (const Value& term : terms) {
    const std::optional<double> number = term.number();
    if (!number.has_value()) return absl::InvalidArgumentError("needs numbers");
    is_whole = is_whole && term.integer().has_value() &&
               !__builtin_add_overflow(whole, *term.integer(), &whole);
    total += *number;
  }
  return is_whole ? Value(whole) : Value(total);
}

Result Join(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"d", "attribute"}));
  ASSIGN_OR_RETURN(const std::vector<Value> items, ItemsOf(self, runtime));
  const MarkedText separator = ToText(bound[0], runtime);
  MarkedText joined;
  for (size_t i = 0; i < items.size(); ++i) {
    const MarkedText text = ToText(FindAttribute(items[i], bound[1], runtime), runtime);
    if (!runtime.Reserve(text.size() + separator.size())) return runtime.status();
    if (i > 0) joined.Append(separator);
    joined.Append(text);
  }
  return runtime.String(std::move(joined));
}

Arguments Behind(const Arguments& arguments, size_t first) {
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin(),
                        rest.positional.begin() + static_cast<ptrdiff_t>(first));
  return rest;
}

// map(attribute="x", default=y) or map("filter", arguments...).
Result Map(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, ItemsOf(self, runtime));
  std::vector<Value> mapped;
  if (arguments.positional.empty()) {
    ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"attribute", "default"}));
    if (!bound.Has(0)) return absl::InvalidArgumentError("needs a filter or attribute=");
    for (const Value& item : items) {
      const Value value = FindAttribute(item, bound[0], runtime);
      mapped.push_back(value.Is<Undefined>() ? bound[1] : value);
    }
    return runtime.NewList(std::move(mapped));
  }
  ASSIGN_OR_RETURN(const MarkedText* filter, StringOf(arguments.positional[0], "map"));
  const Arguments rest = Behind(arguments, 1);
  if (filter->bytes() == "map") return absl::InvalidArgumentError("map of map is not supported");
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(mapped.emplace_back(), CallFilter(filter->bytes(), item, rest, runtime));
  }
  return runtime.NewList(std::move(mapped));
}

// select("test", ...), selectattr("name", "test", ...) and their opposites.
template <bool kKeeps, bool kByAttribute>
Result Select(const Value& self, const Arguments& arguments, Runtime& runtime) {
  constexpr size_t kTest = kByAttribute ? 1 : 0;
  const std::vector<Value>& given = arguments.positional;
  if (given.size() < kTest) return absl::InvalidArgumentError("needs an attribute's name");
  const Value attribute = kByAttribute ? given[0] : Value();
  ASSIGN_OR_RETURN(const std::vector<Value> items, ItemsOf(self, runtime));
  absl::string_view test;
  if (given.size() > kTest) {
    ASSIGN_OR_RETURN(const MarkedText* name, StringOf(given[kTest], "a test's name"));
    test = name->bytes();
  }
  const Arguments rest = test.empty() ? Arguments() : Behind(arguments, kTest + 1);
  std::vector<Value> selected;
  for (const Value& item : items) {
    const Value value = FindAttribute(item, attribute, runtime);
    bool holds = IsTrue(value);
    if (!test.empty()) {
      ASSIGN_OR_RETURN(holds, CallTest(test, value, rest, runtime));
    }
    if (holds == kKeeps) selected.push_back(item);
  }
  return runtime.NewList(std::move(selected));
}

constexpr Filter kFilters[] = {
    {"length", Length},
    {"count", Length},
    {"first", First},
    {"last", Last},
    {"list", ToList},
    {"items", Items},
    {"sort", Sort},
    {"dictsort", DictSort},
    {"max", Extreme<true>},
    {"min", Extreme<false>},
    {"unique", Unique},
    {"reverse", Reverse},
    {"sum", Sum},
    {"join", Join},
    {"map", Map},
    {"select", Select<true, false>},
    {"reject", Select<false, false>},
    {"selectattr", Select<true, true>},
    {"rejectattr", Select<false, true>},
};

}  // namespace

absl::Span<const Filter> SequenceFilters() { return kFilters; }

}  // namespace efedllm::jinja
