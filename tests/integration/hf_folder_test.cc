// A Hugging Face folder over workers: its tensors travel in pieces, and arrive as a GGUF's would.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "integration/cluster_world.h"
#include "model/temp_dir.h"
#include "testing/hf_folder_writer.h"

namespace efedllm {
namespace {

TEST(HfFolder, SaysWhatItsGgufSaysOverWorkers) {
  const std::string models = EFEDLLM_SOURCE_DIR "/../shared/parity/models/";
  if (!std::filesystem::exists(models)) GTEST_SKIP() << "no parity pack here";
  for (const std::string name : {"llama", "mixtral", "qwen3moe"}) {
    const std::string base = models + name + "/" + name + "-f16";
    TempDir dir;
    WriteHfFolder(ModelFile::Open(base + ".gguf").value(), dir.File("hf"), {.shards = 2});
    ClusterWorld world(dir.File("hf"), 2);
    world.Join();
    world.Join();
    ASSERT_TRUE(world.AwaitServing(2)) << name;
    std::ifstream record(base + ".json");
    const auto last = nlohmann::json::parse(record).at("cases").back();
    EXPECT_EQ(world.Generate(last.at("prompt").get<std::vector<int32_t>>(), 32).tokens,
              last.at("exact").at("greedy").get<std::vector<int32_t>>())
        << name;
  }
}

}  // namespace
}  // namespace efedllm
