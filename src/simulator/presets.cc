#include "simulator/presets.h"

#include <utility>
#include <vector>

#include "absl/strings/str_join.h"

namespace efedllm {
namespace {

template <class T>
using Presets = std::vector<std::pair<std::string, T>>;

NodeProfile Machine(uint32_t threads, uint64_t memory_gib, double read_gb, double int8_gop,
                    double f32_gflop) {
  return {threads, memory_gib << 30, read_gb * 1e9, int8_gop * 1e9, f32_gflop * 1e9};
}

// Memory is what is lent. Reading is about 80 % of the memory's nominal rate, arithmetic what our
// kernels reach from cache (docs/numerics.md) times the cores.
const Presets<NodeProfile>& Nodes() {
  static const Presets<NodeProfile> presets = {
      // 4 cores with AVX2, two channels of DDR3-1600, 8 GiB
      {"office-2015", Machine(4, 6, 20, 400, 280)},
      // 6 cores with AVX2, two channels of DDR4-2666, 16 GiB
      {"office-2020", Machine(6, 12, 34, 700, 480)},
      // 8 cores with VNNI, two channels of DDR5-4800, 32 GiB
      {"desktop-2023", Machine(8, 26, 60, 2400, 1000)},
      // 32 cores with AVX-512 VNNI, eight channels of DDR5-4800, 256 GiB
      {"server-2023", Machine(32, 220, 245, 14000, 5000)},
  };
  return presets;
}

SimLink Link(double delay_ms, double jitter_ms, double megabits) {
  return {delay_ms / 1e3, jitter_ms / 1e3, megabits * 1e6 / 8};
}

// Of one node's access: a message from one to another pays two delays.
const Presets<SimLink>& Links() {
  static const Presets<SimLink> presets = {
      {"loopback", Link(0, 0, 40000)},  // several nodes on one machine
      {"lan-10g", Link(0.03, 0.01, 9400)}, {"lan-1g", Link(0.08, 0.05, 940)},
      {"wifi", Link(1.0, 3.0, 200)},  // give the nodes a medium as well: they share the air
      {"wan", Link(10, 2, 100)},      // home or branch office: 20 ms between two of them
  };
  return presets;
}

SimModel Shape(std::string name, uint32_t layers, uint32_t d_model, uint32_t d_ffn, uint32_t heads,
               uint32_t kv_heads, uint32_t vocab, uint32_t experts = 0, uint32_t used = 0) {
  SimModel model;
  model.name = std::move(name);
  model.layers = layers;
  model.d_model = d_model;
  model.d_ffn = d_ffn;
  model.heads = heads;
  model.kv_heads = kv_heads;
  model.head_dim = 128;
  model.vocab = vocab;
  model.experts = experts;
  model.experts_used = used;
  return model;
}

const Presets<SimModel>& Models() {
  static const Presets<SimModel> presets = [] {
    Presets<SimModel> list;
    for (SimModel& model :
         std::vector<SimModel>{Shape("llama-3.1-8b", 32, 4096, 14336, 32, 8, 128256),
                               Shape("mixtral-8x7b", 32, 4096, 14336, 32, 8, 32000, 8, 2),
                               Shape("llama-3.1-70b", 80, 8192, 28672, 64, 8, 128256),
                               Shape("llama-3.1-405b", 126, 16384, 53248, 128, 8, 128256)}) {
      std::string name = model.name;
      list.emplace_back(std::move(name), std::move(model));
    }
    return list;
  }();
  return presets;
}

template <class T>
const T* Find(const Presets<T>& presets, absl::string_view name) {
  for (const auto& [known, value] : presets) {
    if (known == name) return &value;
  }
  return nullptr;
}

template <class T>
std::string Names(const Presets<T>& presets) {
  return absl::StrJoin(presets, ", ",
                       [](std::string* out, const auto& preset) { out->append(preset.first); });
}

}  // namespace

const NodeProfile* FindNodePreset(absl::string_view name) { return Find(Nodes(), name); }
std::string NodePresetNames() { return Names(Nodes()); }
const SimLink* FindLinkPreset(absl::string_view name) { return Find(Links(), name); }
std::string LinkPresetNames() { return Names(Links()); }
const SimModel* FindModelPreset(absl::string_view name) { return Find(Models(), name); }
std::string ModelPresetNames() { return Names(Models()); }

}  // namespace efedllm
