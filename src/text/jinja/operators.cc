// Arithmetic, CompareOnce, SliceOf: Python's operators.
#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "text/jinja/builtins.h"
#include "text/jinja/interpreter.h"
#include "text/utf8.h"

namespace efedllm::jinja {
namespace {

using Result = absl::StatusOr<Value>;

absl::Status NoOperator(absl::string_view op, const Value& a, const Value& b) {
  return absl::InvalidArgumentError(
      absl::StrCat("there is no ", a.kind_name(), " ", op, " ", b.kind_name()));
}
absl::Status TooLarge() { return absl::InvalidArgumentError("an integer is too large"); }

Result Power(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t power = 1;
  if (base == 0 || base == 1 || base == -1) exponent = std::min(exponent, 2 + exponent % 2);
  for (; exponent > 0; --exponent) {
    if (__builtin_mul_overflow(power, base, &power)) return TooLarge();
  }
  return Value(power);
}

// Towards minus infinity, as Python divides.
int64_t FloorDivide(int64_t a, int64_t b) {
  return a / b - ((a % b != 0 && (a < 0) != (b < 0)) ? 1 : 0);
}

Result OfIntegers(absl::string_view op, int64_t a, int64_t b) {
  int64_t result = 0;
  const bool overflows = (op == "+" && __builtin_add_overflow(a, b, &result)) ||
                         (op == "-" && __builtin_sub_overflow(a, b, &result)) ||
                         (op == "*" && __builtin_mul_overflow(a, b, &result));
  if (overflows) return TooLarge();
  if (op == "+" || op == "-" || op == "*") return Value(result);
  if (op == "**") return Power(a, b);
  if (b == 0) return absl::InvalidArgumentError("division by zero");
  if (op == "/") return Value(static_cast<double>(a) / static_cast<double>(b));
  if (b == -1 && a == std::numeric_limits<int64_t>::min()) return TooLarge();
  if (op == "//") return Value(FloorDivide(a, b));
  return Value(a - FloorDivide(a, b) * b);
}

Result OfNumbers(absl::string_view op, double a, double b) {
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "**") return Value(std::pow(a, b));
  if (b == 0) return absl::InvalidArgumentError("division by zero");
  if (op == "/") return Value(a / b);
  if (op == "//") return Value(std::floor(a / b));
  return Value(a - std::floor(a / b) * b);
}

Result Repeat(const Value& value, int64_t times, Runtime& runtime) {
  const auto count = static_cast<size_t>(std::max<int64_t>(times, 0));
  const size_t unit =
      value.IsString() ? value.text().size() + 1 : value.list()->items.size() * sizeof(Value) + 1;
  if (count > (size_t{1} << 40) / unit || !runtime.Reserve(count * unit)) {
    runtime.Reserve(size_t{1} << 50);
    return runtime.status();
  }
  if (value.IsString()) {
    MarkedText text;
    for (size_t i = 0; i < count; ++i) text.Append(value.text());
    return runtime.String(std::move(text));
  }
  std::vector<Value> items;
  for (size_t i = 0; i < count; ++i) {
    items.insert(items.end(), value.list()->items.begin(), value.list()->items.end());
  }
  return runtime.NewList(std::move(items), value.list()->is_tuple);
}

Result Joined(const Value& a, const Value& b, Runtime& runtime) {
  if (a.IsString()) {
    MarkedText text = a.text();
    text.Append(b.text());
    return runtime.String(std::move(text));
  }
  std::vector<Value> items = a.list()->items;
  items.insert(items.end(), b.list()->items.begin(), b.list()->items.end());
  return runtime.NewList(std::move(items), a.list()->is_tuple);
}

// Where a slice's bound lies among `size` items.
int64_t ClampBound(int64_t bound, int64_t size, int64_t least, int64_t most) {
  if (bound < 0) bound += size;
  return std::clamp(bound, least, most);
}

struct Range {
  int64_t start;
  int64_t stop;
  int64_t step;
};

absl::StatusOr<Range> RangeOf(const Value& start, const Value& stop, const Value& step,
                              int64_t size) {
  for (const Value& bound : {start, stop, step}) {
    const bool is_given = !bound.Is<Undefined>() && !bound.Is<None>();
    if (is_given && !bound.integer().has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("a slice needs integers, not ", bound.kind_name()));
    }
  }
  Range range{0, 0, step.integer().value_or(1)};
  if (range.step == 0) return absl::InvalidArgumentError("a slice's step can't be 0");
  constexpr int64_t kFar = std::numeric_limits<int32_t>::max();
  range.step = std::clamp(range.step, -kFar, kFar);
  const bool forward = range.step > 0;
  const int64_t least = forward ? 0 : -1;
  const int64_t most = forward ? size : size - 1;
  range.start = forward ? 0 : size - 1;
  range.stop = forward ? size : -1;
  if (start.integer().has_value()) range.start = ClampBound(*start.integer(), size, least, most);
  if (stop.integer().has_value()) range.stop = ClampBound(*stop.integer(), size, least, most);
  return range;
}

template <typename Visit>
void ForEachIndex(const Range& range, const Visit& visit) {
  for (int64_t i = range.start; range.step > 0 ? i < range.stop : i > range.stop; i += range.step) {
    visit(static_cast<size_t>(i));
  }
}

}  // namespace

Result Arithmetic(absl::string_view op, const Value& a, const Value& b, Runtime& runtime) {
  if (a.integer().has_value() && b.integer().has_value()) {
    return OfIntegers(op, *a.integer(), *b.integer());
  }
  if (a.number().has_value() && b.number().has_value()) {
    return OfNumbers(op, *a.number(), *b.number());
  }
  const bool both_lists =
      a.list() != nullptr && b.list() != nullptr && a.list()->is_tuple == b.list()->is_tuple;
  if (op == "+" && ((a.IsString() && b.IsString()) || both_lists)) return Joined(a, b, runtime);
  const auto repeats = [](const Value& v) { return v.IsString() || v.list() != nullptr; };
  if (op == "*" && repeats(a) && b.integer().has_value()) return Repeat(a, *b.integer(), runtime);
  if (op == "*" && repeats(b) && a.integer().has_value()) return Repeat(b, *a.integer(), runtime);
  if (op == "%" && a.IsString()) {
    const bool is_tuple = b.list() != nullptr && b.list()->is_tuple;
    ASSIGN_OR_RETURN(MarkedText text, FormatPercent(a.text(),
                                                    is_tuple ? absl::MakeConstSpan(b.list()->items)
                                                             : absl::MakeConstSpan(&b, 1),
                                                    runtime));
    return runtime.String(std::move(text));
  }
  return NoOperator(op, a, b);
}

absl::StatusOr<bool> CompareOnce(absl::string_view op, const Value& a, const Value& b,
                                 Runtime& runtime) {
  if (op == "==") return Equals(a, b, runtime);
  if (op == "!=") return !Equals(a, b, runtime);
  if (op == "in") return Contains(b, a, runtime);
  if (op == "not in") {
    ASSIGN_OR_RETURN(const bool is_in, Contains(b, a, runtime));
    return !is_in;
  }
  // NaN is neither less nor greater, so <= is not the opposite of >.
  const bool swaps = op[0] == '>';
  const std::optional<bool> less = swaps ? Less(b, a, runtime) : Less(a, b, runtime);
  if (!less.has_value()) return NoOperator(op, a, b);
  return *less || (op.size() == 2 && Equals(a, b, runtime));
}

Result SliceOf(const Value& object, const Value& start, const Value& stop, const Value& step,
               Runtime& runtime) {
  if (object.list() != nullptr) {
    const std::vector<Value>& items = object.list()->items;
    ASSIGN_OR_RETURN(const Range range,
                     RangeOf(start, stop, step, static_cast<int64_t>(items.size())));
    std::vector<Value> part;
    ForEachIndex(range, [&](size_t i) { part.push_back(items[i]); });
    return runtime.NewList(std::move(part), object.list()->is_tuple);
  }
  if (!object.IsString()) {
    return absl::InvalidArgumentError(absl::StrCat("there are no slices of ", object.kind_name()));
  }
  const MarkedText& text = object.text();
  runtime.ChargeBytes(text.size());
  if (!runtime.Reserve((text.size() + 1) * sizeof(size_t))) return runtime.status();
  std::vector<size_t> begins;  // of the characters
  for (size_t at = 0; at < text.size();) {
    begins.push_back(at);
    at += DecodeUtf8(object.bytes().substr(at)).bytes;
  }
  ASSIGN_OR_RETURN(const Range range,
                   RangeOf(start, stop, step, static_cast<int64_t>(begins.size())));
  begins.push_back(text.size());
  if (range.step == 1) {
    if (range.start >= range.stop) return runtime.String(MarkedText());
    return runtime.String(text.Substr(begins[static_cast<size_t>(range.start)],
                                      begins[static_cast<size_t>(range.stop)]));
  }
  MarkedText part;
  ForEachIndex(range, [&](size_t i) { part.AppendPart(text, begins[i], begins[i + 1]); });
  return runtime.String(std::move(part));
}

}  // namespace efedllm::jinja
