#include "model/tensor_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "model/bits.h"
#include "model/gguf_builder.h"
#include "model/packed_file.h"
#include "model/temp_dir.h"

namespace efedllm {
namespace {

bool Never() { return false; }

std::string DataOf(const PackedTensor& tensor) {
  return std::string(reinterpret_cast<const char*>(tensor.data().data()), tensor.data().size());
}

struct World {
  World()
      : bytes(TinyLlama().Build()),
        file(*ModelFile::Parse(BytesOf(bytes))),
        config(*ModelConfigFromFile(file)),
        cache(*WeightCache::Open(dir.path())),
        hasher(*TensorHasher::Create(file, "")) {}

  std::vector<StageTensor> Load(TensorSources sources = {}) {
    return *LoadStageTensors(config, file, {0, 2}, sources);
  }
  TensorSources Cached() { return {.cache = cache.get(), .hasher = hasher.get()}; }

  const std::string bytes;
  const ModelFile file;
  const ModelConfig config;
  TempDir dir;
  std::unique_ptr<WeightCache> cache;
  std::unique_ptr<TensorHasher> hasher;
};

void ExpectRight(const World& world, const std::vector<StageTensor>& tensors) {
  ASSERT_EQ(tensors.size(), 18u);
  for (const StageTensor& tensor : tensors) {
    const auto gguf = world.file.FindTensor(tensor.spec.name)->bytes;
    EXPECT_EQ(DataOf(*tensor.data), DataOf(**PackedTensor::FromGguf(tensor.spec, gguf)))
        << tensor.spec.name;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data->data().data()) % kPackedAlignment, 0u);
  }
}

TEST(TensorLoader, PacksTheSameAloneAndInATeam) {
  World world;
  ExpectRight(world, world.Load());
  ThreadTeam team(3);
  ExpectRight(world, world.Load({.team = &team}));
}

TEST(TensorLoader, CutsALargeMatrixIntoPieces) {
  const std::string rows(std::string::size_type{4} << 20, '\x3c');
  GgufBuilder builder;
  builder.Tensor("w", 1, {512, 4096}, rows);
  const std::string bytes = builder.Build();
  const ModelFile file = *ModelFile::Parse(BytesOf(bytes));
  TensorSpec spec{"w", DType::kF16, 4096, 512, {}};
  ThreadTeam team(2);
  const auto tensors = *LoadTensors(file, {spec}, {.team = &team});
  EXPECT_EQ(DataOf(*tensors[0].data), DataOf(**PackedTensor::FromGguf(spec, BytesOf(rows))));
}

TEST(TensorLoader, MapsWhatWasKept) {
  World world;
  const auto packed = world.Load(world.Cached());
  EXPECT_TRUE(world.dir.Ending(".packed").empty()) << "loading writes nothing";
  ASSERT_TRUE(KeepTensors(packed, *world.cache, *world.hasher, Never).ok());
  EXPECT_EQ(world.dir.Ending(".packed").size(), 18u);
  const auto mapped = world.Load(world.Cached());
  ExpectRight(world, mapped);
  EXPECT_FALSE(mapped[0].spec.chunks.empty()) << "known by content";
}

TEST(TensorLoader, PacksAgainWhatTheCacheLostOrDamaged) {
  World world;
  ASSERT_TRUE(KeepTensors(world.Load(), *world.cache, *world.hasher, Never).ok());
  std::vector<std::string> files = world.dir.Ending(".packed");
  std::filesystem::remove(files[0]);
  DamageFile(files[1], kPackedFileHeaderBytes + 3);
  ExpectRight(world, world.Load(world.Cached()));
  ASSERT_TRUE(KeepTensors(world.Load(), *world.cache, *world.hasher, Never).ok());
  EXPECT_EQ(world.dir.Ending(".packed").size(), 18u);
}

TEST(TensorLoader, KeepsOnlyThisModelsTensorsAndStopsWhenAsked) {
  World world;
  world.dir.Write("0123.packed", "of another model");
  const auto tensors = world.Load();
  int asked = 0;
  const auto stop = [&] { return ++asked > 18 + 5; };  // hashes 18, then keeps 5
  ASSERT_TRUE(KeepTensors(tensors, *world.cache, *world.hasher, stop).ok());
  EXPECT_EQ(world.dir.Ending(".packed").size(), 5u);
  EXPECT_FALSE(std::filesystem::exists(world.dir.File("0123.packed")));
}

TEST(TensorLoader, AFileIsNotNeededOnceItsTensorsAreLoaded) {
  World world;
  std::vector<StageTensor> tensors;
  {
    const std::string bytes = TinyLlama().Build();
    const ModelFile file = *ModelFile::Parse(BytesOf(bytes));
    tensors = *LoadStageTensors(world.config, file, {0, 2});
  }
  ExpectRight(world, tensors);
}

}  // namespace
}  // namespace efedllm
