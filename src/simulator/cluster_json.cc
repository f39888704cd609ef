#include "simulator/cluster_json.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "cluster/kv_rule.h"
#include "common/status_macros.h"
#include "simulator/json_fields.h"
#include "simulator/presets.h"
#include "tensor/dtype.h"

namespace efedllm {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxMemoryBytes = uint64_t{1} << 50;
constexpr double kLeastRate = 1e6;  // bytes or operations per second
constexpr double kMostRate = 1e18;
constexpr size_t kMaxGroups = 1024;
constexpr size_t kMaxPairs = size_t{1} << 20;
constexpr uint32_t kMaxPositions = 1u << 20;
constexpr uint32_t kUsualContext = 4096;
constexpr uint32_t kMaxRequests = 100'000;
constexpr uint64_t kMaxOutputTokens = 10'000'000;
constexpr char kCoordinatorName[] = "coordinator";

// Names of media or hosts -> their index.
using NameIndex = std::map<std::string, size_t>;

struct Reader {
  const ModelReader& read_model;
  SimSpec spec;
  SimLink network;
  NameIndex media, hosts;
  // A name in "links" stands for these: one node, or all of a group.
  std::map<std::string, std::vector<size_t>> groups;

  absl::Status Read(const json& document);
  absl::Status ReadModel(const json& object);
  absl::Status ReadMedia(JsonFields& root);
  absl::Status ReadHosts(JsonFields& root);
  absl::StatusOr<SimNode> ReadNode(JsonFields& fields);
  absl::Status ReadNodes(JsonFields& root);
  absl::Status ReadPairs(JsonFields& root);
  absl::Status ReadPair(const json& object, const std::string& where);
  absl::Status ReadLoad(const json& object);
  absl::Status ReadRules(const json& object);
  void ReadLayout(JsonFields& fields, const json& object);
};

double BytesPerWeight(JsonFields& fields) {
  if (fields.Has("bytes_per_weight")) return fields.Number("bytes_per_weight", 0.05, 8);
  const std::string name = fields.Text("weights");
  for (uint32_t number = 0; number < 64; ++number) {
    const std::optional<DType> dtype = DTypeFromGguf(number);
    if (!dtype) continue;
    if (absl::AsciiStrToLower(DTypeName(*dtype)) == absl::AsciiStrToLower(name)) {
      return static_cast<double>(BlockBytes(*dtype)) / static_cast<double>(BlockValues(*dtype));
    }
  }
  fields.Fail("weights", absl::StrCat("must be one of ", AllDTypeNames()));
  return 1;
}

KvType AutoKv(const SimModel& model) {
  ModelConfig config;
  config.layers = model.layers;
  config.kv_heads = model.kv_heads;
  config.head_dim = model.head_dim;
  return AutoKvType(config);
}

void ReadShape(JsonFields& fields, SimModel& model) {
  const auto number = [&](const char* key, uint64_t least, uint64_t most) {
    return static_cast<uint32_t>(fields.Integer(key, least, most));
  };
  model.name = fields.Text("name", "model");
  model.layers = number("layers", 1, 1024);
  model.d_model = number("d_model", 32, 1u << 17);
  model.d_ffn = number("d_ffn", 32, 1u << 20);
  model.heads = number("heads", 1, 1024);
  model.kv_heads = number("kv_heads", 1, 1024);
  model.head_dim = number("head_dim", 2, 1024);
  model.vocab = number("vocab", 2, 1u << 22);
  model.experts = static_cast<uint32_t>(fields.Integer("experts", 0, 1024, 0));
  model.experts_used =
      static_cast<uint32_t>(fields.Integer("experts_used", 0, 1024, model.experts > 0 ? 1 : 0));
  if (model.kv_heads > model.heads) fields.Fail("kv_heads", "there are more than heads");
  if (model.experts_used > model.experts || (model.experts > 0 && model.experts_used == 0)) {
    fields.Fail("experts_used", "must be from 1 to the number of experts");
  }
}

absl::Status Reader::ReadModel(const json& object) {
  JsonFields fields(object, "model");
  SimModel& model = spec.model;
  if (fields.Has("gguf")) {
    const std::string path = fields.Path("gguf");
    RETURN_IF_ERROR(fields.Error());
    ASSIGN_OR_RETURN(model, read_model(path));
  } else if (fields.Has("preset")) {
    const std::string name = fields.Text("preset");
    const SimModel* preset = FindModelPreset(name);
    if (preset == nullptr) {
      fields.Fail("preset", absl::StrCat("must be one of ", ModelPresetNames()));
      return fields.Finish();
    }
    model = *preset;
  } else {
    ReadShape(fields, model);
  }
  if (model.bytes_per_weight == 0) model.bytes_per_weight = BytesPerWeight(fields);
  const std::string kv_type = fields.Text("kv_type", std::string(KvTypeName(AutoKv(model))));
  const std::optional<KvType> known = KvTypeFromName(kv_type);
  if (!known) fields.Fail("kv_type", "must be f32, f16 or q8_0");
  model.kv_type = known.value_or(KvType::kF16);
  if (model.head_dim % KvBlockValues(model.kv_type) != 0) {
    fields.Fail("kv_type", absl::StrCat(kv_type, " needs heads of a multiple of ",
                                        KvBlockValues(model.kv_type), " dimensions"));
  }
  return fields.Finish();
}

// Fields of a link within an object that may have others; `base` stands for what is not said.
SimLink ReadLinkFields(JsonFields& fields, SimLink base) {
  if (fields.Has("preset")) {
    const SimLink* preset = FindLinkPreset(fields.Text("preset"));
    if (preset == nullptr) {
      fields.Fail("preset", absl::StrCat("must be one of ", LinkPresetNames()));
    } else {
      base = *preset;
    }
  }
  base.delay_seconds = fields.Number("delay_ms", 0, 60'000, base.delay_seconds * 1e3) / 1e3;
  base.jitter_seconds = fields.Number("jitter_ms", 0, 60'000, base.jitter_seconds * 1e3) / 1e3;
  base.bytes_per_second =
      fields.Number("megabits_per_second", 0.01, 1e7, base.bytes_per_second * 8 / 1e6) / 8 * 1e6;
  return base;
}

absl::StatusOr<SimLink> ReadLink(const json& object, const std::string& where,
                                 const SimLink& base) {
  JsonFields fields(object, where);
  const SimLink link = ReadLinkFields(fields, base);
  RETURN_IF_ERROR(fields.Finish());
  return link;
}

absl::Status Reader::ReadMedia(JsonFields& root) {
  const json* array = root.Array("media", kMaxGroups);
  for (size_t i = 0; array != nullptr && i < array->size(); ++i) {
    JsonFields fields((*array)[i], absl::StrCat("media[", i, "]"));
    SimMedium medium{fields.Text("name"),
                     fields.Number("megabits_per_second", 0.01, 1e7) / 8 * 1e6};
    if (!media.emplace(medium.name, i).second) fields.Fail("name", "stands twice");
    RETURN_IF_ERROR(fields.Finish());
    spec.media.push_back(std::move(medium));
  }
  return absl::OkStatus();
}

absl::Status Reader::ReadHosts(JsonFields& root) {
  const json* array = root.Array("hosts", kMaxGroups);
  for (size_t i = 0; array != nullptr && i < array->size(); ++i) {
    JsonFields fields((*array)[i], absl::StrCat("hosts[", i, "]"));
    SimHost host{fields.Text("name"), static_cast<uint32_t>(fields.Integer("cores", 1, 4096))};
    if (!hosts.emplace(host.name, i).second) fields.Fail("name", "stands twice");
    RETURN_IF_ERROR(fields.Finish());
    spec.hosts.push_back(std::move(host));
  }
  return absl::OkStatus();
}

// [[rows, milliseconds], ...]
std::vector<MeasuredTime> ReadTimes(JsonFields& fields) {
  std::vector<MeasuredTime> times;
  const json* array = fields.Array("times", 64);
  if (array == nullptr) return times;
  for (const json& pair : *array) {
    const bool numbers =
        pair.is_array() && pair.size() == 2 && pair[0].is_number_unsigned() && pair[1].is_number();
    const uint64_t rows = numbers ? pair[0].get<uint64_t>() : 0;
    const double millis = numbers ? pair[1].get<double>() : 0;
    const uint32_t before = times.empty() ? 0 : times.back().rows;
    if (!numbers || rows <= before || rows > 65536 || !(millis > 0 && millis < 1e9)) {
      fields.Fail("times", "must be pairs [rows, milliseconds], with more rows each time");
      return {};
    }
    times.push_back({static_cast<uint32_t>(rows), millis / 1e3});
  }
  if (times.size() < 2) fields.Fail("times", "needs at least two pairs");
  return times;
}

absl::StatusOr<SimNode> Reader::ReadNode(JsonFields& fields) {
  SimNode node;
  std::optional<NodeProfile> base;
  if (fields.Has("preset")) {
    const NodeProfile* preset = FindNodePreset(fields.Text("preset"));
    if (preset == nullptr) {
      fields.Fail("preset", absl::StrCat("must be one of ", NodePresetNames()));
    } else {
      base = *preset;
    }
  }
  const auto rate = [&](const char* key, double NodeProfile::*member) {
    return fields.Number(key, kLeastRate, kMostRate,
                         base ? std::optional<double>(*base.*member) : std::nullopt);
  };
  node.profile.threads =
      static_cast<uint32_t>(fields.Integer("threads", 1, 4096, base ? base->threads : 1));
  node.profile.memory_bytes = fields.Bytes(
      "memory", kMaxMemoryBytes, base ? std::optional<uint64_t>(base->memory_bytes) : std::nullopt);
  node.profile.read_bytes_per_second =
      rate("read_bytes_per_second", &NodeProfile::read_bytes_per_second);
  node.profile.int8_ops_per_second = rate("int8_ops_per_second", &NodeProfile::int8_ops_per_second);
  node.profile.f32_flops_per_second =
      rate("f32_flops_per_second", &NodeProfile::f32_flops_per_second);
  node.times = ReadTimes(fields);
  node.access = network;
  if (const json* link = fields.Object("link")) {
    ASSIGN_OR_RETURN(node.access, ReadLink(*link, fields.Place("link"), network));
  }
  const auto index = [&](const char* key, const NameIndex& names) -> std::optional<size_t> {
    if (!fields.Has(key)) return std::nullopt;
    const auto found = names.find(fields.Text(key));
    if (found != names.end()) return found->second;
    fields.Fail(key, "is not named in the file");
    return std::nullopt;
  };
  node.medium = index("medium", media);
  node.host = index("host", hosts);
  return node;
}

absl::Status Reader::ReadNodes(JsonFields& root) {
  const json* array = root.Array("nodes", kMaxGroups);
  if (array == nullptr || array->empty()) root.Fail("nodes", "must name at least one node");
  for (size_t i = 0; array != nullptr && i < array->size(); ++i) {
    JsonFields fields((*array)[i], absl::StrCat("nodes[", i, "]"));
    ASSIGN_OR_RETURN(SimNode node, ReadNode(fields));
    const std::string name = fields.Text("name", absl::StrCat("node-", i + 1));
    const uint64_t count = fields.Integer("count", 1, kMaxSimNodes, 1);
    if (name == kCoordinatorName || groups.count(name) > 0) fields.Fail("name", "stands twice");
    RETURN_IF_ERROR(fields.Finish());
    if (spec.nodes.size() + count > kMaxSimNodes) {
      fields.Fail("count", absl::StrCat("there are more than ", kMaxSimNodes, " nodes"));
      return fields.Finish();
    }
    for (uint64_t k = 0; k < count; ++k) {
      node.name = count == 1 ? name : absl::StrCat(name, "-", k + 1);
      groups[name].push_back(spec.nodes.size());
      if (count > 1) groups[node.name].push_back(spec.nodes.size());
      spec.nodes.push_back(node);
    }
  }
  groups[kCoordinatorName].push_back(spec.nodes.size());
  return absl::OkStatus();
}

absl::Status Reader::ReadPair(const json& object, const std::string& where) {
  JsonFields fields(object, where);
  const auto find = [&](const char* key) -> const std::vector<size_t>& {
    static const std::vector<size_t> kNone;
    const auto found = groups.find(fields.Text(key));
    if (found != groups.end()) return found->second;
    fields.Fail(key, "is no node's name");
    return kNone;
  };
  const std::vector<size_t>& from = find("from");
  const std::vector<size_t>& to = find("to");
  // Two accesses make the link of a pair that nobody described.
  SimLink link = network;
  link.delay_seconds *= 2;
  link = ReadLinkFields(fields, link);
  const bool reachable = fields.Bool("reachable", true);
  const bool both = fields.Bool("both_ways", true);
  RETURN_IF_ERROR(fields.Finish());
  if (spec.pairs.size() + from.size() * to.size() * 2 > kMaxPairs) {
    fields.Fail("from", absl::StrCat("there are more than ", kMaxPairs, " pairs"));
    return fields.Finish();
  }
  for (const size_t a : from) {
    for (const size_t b : to) {
      if (a == b) continue;
      spec.pairs.push_back({a, b, link, reachable});
      if (both) spec.pairs.push_back({b, a, link, reachable});
    }
  }
  return absl::OkStatus();
}

absl::Status Reader::ReadPairs(JsonFields& root) {
  const json* array = root.Array("links", 4096);
  for (size_t i = 0; array != nullptr && i < array->size(); ++i) {
    RETURN_IF_ERROR(ReadPair((*array)[i], absl::StrCat("links[", i, "]")));
  }
  return absl::OkStatus();
}

// A number, or [least, most].
Range ReadRange(JsonFields& fields, const json& object, const char* key, uint32_t most) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_array()) {
    const auto number = static_cast<uint32_t>(fields.Integer(key, 1, most));
    return {number, number};
  }
  const json& array = *fields.Array(key, 4096);
  const bool numbers =
      array.size() == 2 && array[0].is_number_unsigned() && array[1].is_number_unsigned();
  const uint64_t low = numbers ? array[0].get<uint64_t>() : 0;
  const uint64_t high = numbers ? array[1].get<uint64_t>() : 0;
  if (low < 1 || high < low || high > most) {
    fields.Fail(key, absl::StrCat("must be a number or [least, most], from 1 to ", most));
    return {1, 1};
  }
  return {static_cast<uint32_t>(low), static_cast<uint32_t>(high)};
}

absl::Status Reader::ReadLoad(const json& object) {
  JsonFields fields(object, "load");
  SimLoad& load = spec.load;
  load.streams = static_cast<uint32_t>(fields.Integer("streams", 1, kMaxSimStreams));
  load.requests = static_cast<uint32_t>(fields.Integer("requests", 1, kMaxRequests, load.streams));
  load.prompt_tokens = ReadRange(fields, object, "prompt_tokens", kMaxPositions);
  load.output_tokens = ReadRange(fields, object, "output_tokens", kMaxPositions);
  load.arrivals_per_second = fields.Number("arrivals_per_second", 0, 1e6, 0);
  if (uint64_t{load.requests} * load.output_tokens.most > kMaxOutputTokens) {
    fields.Fail("requests", absl::StrCat("requests x output_tokens may be ", kMaxOutputTokens));
  }
  return fields.Finish();
}

// A word, or the number of layers of each stage: [11, 11].
void Reader::ReadLayout(JsonFields& fields, const json& object) {
  SimRules& rules = spec.rules;
  const uint32_t layers = spec.model.layers;
  const auto found = object.find("layout");
  if (found != object.end() && found->is_array()) {
    const json* array = fields.Array("layout", spec.nodes.size());
    uint64_t sum = 0;
    for (size_t i = 0; array != nullptr && i < array->size(); ++i) {
      const json& number = (*array)[i];
      const uint64_t of_stage = number.is_number_unsigned() ? number.get<uint64_t>() : 0;
      if (of_stage == 0 || of_stage > layers) sum = layers + uint64_t{1};
      sum += of_stage;
      rules.stage_layers.push_back(static_cast<uint32_t>(of_stage));
    }
    if (sum != layers) fields.Fail("layout", absl::StrCat("must have ", layers, " layers in all"));
    return;
  }
  const std::string layout = fields.Text("layout", "auto");
  if (layout == "chain") {
    rules.layout = Layout::kChain;
  } else if (layout == "replicas") {
    rules.layout = Layout::kReplicas;
  } else if (layout == "even") {
    const auto stages = static_cast<uint32_t>(std::min<size_t>(spec.nodes.size(), layers));
    for (uint32_t i = 0; i < stages; ++i) {
      rules.stage_layers.push_back((i + 1) * layers / stages - i * layers / stages);
    }
  } else if (layout != "auto") {
    fields.Fail("layout", "must be auto, chain, replicas, even, or the layers of each stage");
  }
}

absl::Status Reader::ReadRules(const json& object) {
  JsonFields fields(object, "scheduler");
  SimRules& rules = spec.rules;
  const uint32_t longest = spec.load.prompt_tokens.most + spec.load.output_tokens.most;
  rules.max_sequences =
      static_cast<uint32_t>(fields.Integer("max_sequences", 1, kMaxSimStreams, spec.load.streams));
  rules.max_step_tokens =
      static_cast<uint32_t>(fields.Integer("max_step_tokens", 1, 8192, rules.max_step_tokens));
  rules.context = static_cast<uint32_t>(
      fields.Integer("context", 2, 4 * kMaxPositions, std::max(kUsualContext, 2 * longest)));
  rules.step_overhead_seconds = fields.Number("step_overhead_us", 0, 1e6, 30) / 1e6;
  rules.hop_overhead_seconds = fields.Number("hop_overhead_us", 0, 1e6, 50) / 1e6;
  rules.bytes_per_value = fields.Number("bytes_per_value", 0.05, 8, rules.bytes_per_value);
  ReadLayout(fields, object);
  if (rules.context < longest) {
    fields.Fail("context", absl::StrCat("is less than a prompt and its output: ", longest));
  }
  return fields.Finish();
}

absl::Status Reader::Read(const json& document) {
  JsonFields root(document, "");
  const json empty = json::object();
  const auto object = [&](const char* key, bool required) -> const json& {
    const json* found = root.Object(key);
    if (found == nullptr && required) root.Fail(key, "is missing");
    return found == nullptr ? empty : *found;
  };
  const json& model = object("model", true);
  const json& load = object("load", true);
  const json& coordinator = object("coordinator", true);
  if (const absl::Status status = root.Error(); !status.ok()) return status;
  RETURN_IF_ERROR(ReadModel(model));
  ASSIGN_OR_RETURN(network,
                   ReadLink(object("network", false), "network", *FindLinkPreset("lan-1g")));
  RETURN_IF_ERROR(ReadMedia(root));
  RETURN_IF_ERROR(ReadHosts(root));
  JsonFields fields(coordinator, kCoordinatorName);
  ASSIGN_OR_RETURN(spec.coordinator, ReadNode(fields));
  spec.coordinator.name = kCoordinatorName;
  RETURN_IF_ERROR(fields.Finish());
  RETURN_IF_ERROR(ReadNodes(root));
  RETURN_IF_ERROR(ReadPairs(root));
  RETURN_IF_ERROR(ReadLoad(load));
  RETURN_IF_ERROR(ReadRules(object("scheduler", false)));
  spec.seed = root.Integer("seed", 0, UINT64_MAX, 1);
  return root.Finish();
}

}  // namespace

absl::StatusOr<SimSpec> ParseClusterJson(absl::string_view text, const ModelReader& read_model) {
  ASSIGN_OR_RETURN(const json document, ParseStrictJson(text));
  Reader reader{read_model, {}, {}, {}, {}, {}};
  RETURN_IF_ERROR(reader.Read(document));
  return std::move(reader.spec);
}

}  // namespace efedllm
