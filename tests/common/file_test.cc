#include "common/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <utility>

namespace efedllm {
namespace {

class File : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "efedllm_file_test." + std::to_string(getpid());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string PathOf(const std::string& name) const { return folder_ + "/" + name; }
  static int ModeOf(const std::string& path) {
    struct stat info = {};
    EXPECT_EQ(stat(path.c_str(), &info), 0);
    return info.st_mode & 07777;
  }
  int FilesInFolder() const {
    return static_cast<int>(std::distance(std::filesystem::directory_iterator(folder_), {}));
  }

  std::string folder_;
};

std::string TextOf(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

TEST_F(File, WhatIsWrittenIsReadAndMapped) {
  const std::string data("a\0b\n", 4), path = PathOf("data");
  ASSERT_TRUE(WriteFileAtomically(path, data, 0600).ok());
  EXPECT_EQ(*ReadFile(path, 4), data);
  EXPECT_EQ(TextOf(*MappedFile::Open(path)), data);
  EXPECT_EQ(ModeOf(path), 0600);
}

TEST_F(File, WritingReplacesTheWholeFileAndLeavesNoOther) {
  const std::string path = PathOf("data");
  ASSERT_TRUE(WriteFileAtomically(path, "a long first text", 0644).ok());
  ASSERT_TRUE(WriteFileAtomically(path, "short", 0644).ok());
  EXPECT_EQ(*ReadFile(path, 100), "short");
  EXPECT_EQ(FilesInFolder(), 1);
}

TEST_F(File, AFailedWriteLeavesTheOldFileAndNoOther) {
  std::filesystem::create_directory(PathOf("data"));  // a folder can't be replaced by a file
  EXPECT_FALSE(WriteFileAtomically(PathOf("data"), "text", 0644).ok());
  EXPECT_EQ(FilesInFolder(), 1);
  const absl::Status status = WriteFileAtomically(PathOf("no/such/folder"), "text", 0644);
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
}

TEST_F(File, AnEmptyFileIsMappedAsNothing) {
  ASSERT_TRUE(WriteFileAtomically(PathOf("empty"), "", 0644).ok());
  absl::StatusOr<MappedFile> file = MappedFile::Open(PathOf("empty"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(file->bytes().empty());
}

TEST_F(File, ErrorsNameThePath) {
  for (const absl::Status& status :
       {MappedFile::Open(PathOf("missing")).status(), ReadFile(PathOf("missing"), 10).status()}) {
    EXPECT_TRUE(absl::IsNotFound(status)) << status;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(PathOf("missing")));
  }
}

TEST_F(File, WhatIsNoRegularFileIsRefusedAndNotWaitedFor) {
  ASSERT_EQ(mkfifo(PathOf("fifo").c_str(), 0600), 0);
  for (const std::string& path : {folder_, PathOf("fifo"), std::string("/dev/null")}) {
    EXPECT_TRUE(absl::IsInvalidArgument(MappedFile::Open(path).status())) << path;
    EXPECT_TRUE(absl::IsInvalidArgument(ReadFile(path, 10).status())) << path;
  }
}

TEST_F(File, AReadIsBounded) {
  ASSERT_TRUE(WriteFileAtomically(PathOf("data"), "12345", 0644).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(ReadFile(PathOf("data"), 4).status()));
}

TEST_F(File, OnlyWhatAKilledWriterLeftIsRemoved) {
  const std::string kept[] = {"node.key",      "node.key.old",       "abc.0123456789ab.crt",
                              "x.0123456789a", "coordinator.db-wal", "0123456789ab"};
  for (const std::string& name : kept) {
    ASSERT_TRUE(WriteFileAtomically(PathOf(name), "", 0600).ok());
  }
  ASSERT_TRUE(WriteFileAtomically(PathOf("node.key.0123456789ab"), "", 0600).ok());
  RemoveUnfinishedFiles(PathOf(""));
  EXPECT_FALSE(std::filesystem::exists(PathOf("node.key.0123456789ab")));
  for (const std::string& name : kept) EXPECT_TRUE(std::filesystem::exists(PathOf(name))) << name;
  RemoveUnfinishedFiles(PathOf("nowhere"));
}

TEST_F(File, AFileThatHidesItsSizeIsReadInFull) {
  EXPECT_THAT(*ReadFile("/proc/meminfo", 64 << 10), testing::HasSubstr("MemAvailable:"));
  EXPECT_TRUE(absl::IsResourceExhausted(ReadFile("/proc/meminfo", 10).status()));
}

TEST_F(File, MovingAMappingKeepsItsAddress) {
  ASSERT_TRUE(WriteFileAtomically(PathOf("data"), "text", 0644).ok());
  MappedFile first = *MappedFile::Open(PathOf("data"));
  const uint8_t* address = first.bytes().data();
  MappedFile second;
  second = std::move(first);
  EXPECT_EQ(second.bytes().data(), address);
  EXPECT_EQ(TextOf(second), "text");
}

TEST_F(File, DroppedPagesComeBackFromDisk) {
  const std::string data(64 << 10, 'x');
  ASSERT_TRUE(WriteFileAtomically(PathOf("data"), data, 0644).ok());
  const MappedFile file = *MappedFile::Open(PathOf("data"));
  file.DropPages(100, data.size() - 200);
  file.DropPages(0, data.size() * 2);  // past the end: nothing to drop
  EXPECT_EQ(TextOf(file), data);
}

TEST_F(File, FoldersAreMadeWithTheModeOfTheLast) {
  const std::string path = PathOf("a/b/c");
  ASSERT_TRUE(MakeDirectories(path, 0700).ok());
  EXPECT_EQ(ModeOf(path), 0700);
  EXPECT_TRUE(MakeDirectories(path, 0755).ok());
  EXPECT_EQ(ModeOf(path), 0700) << "a folder that is there keeps its mode";
  ASSERT_TRUE(WriteFileAtomically(PathOf("file"), "", 0644).ok());
  EXPECT_FALSE(MakeDirectories(PathOf("file/x"), 0700).ok());
}

}  // namespace
}  // namespace efedllm
