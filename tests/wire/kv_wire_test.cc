#include "wire/kv_wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "efedllm/stage.pb.h"
#include "wire/frame.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kBytesPerToken = 10;
constexpr uint32_t kMaxPosition = 100;
constexpr KvExtentFrame kFrame{Epoch{5}, SequenceId{900}, 64, 3};

struct Read {
  absl::Status status;
  KvExtentFrame frame;
  std::string kv;
};

Read Parse(const grpc::ByteBuffer& bytes, uint64_t bytes_per_token = kBytesPerToken) {
  Read read;
  grpc::Slice memory;
  absl::string_view kv;
  read.status = KvFromWire(bytes, bytes_per_token, kMaxPosition, read.frame, memory, kv);
  read.kv = std::string(kv);
  return read;
}

std::string ToString(const grpc::ByteBuffer& buffer) {
  grpc::Slice slice;
  EXPECT_TRUE(buffer.DumpToSingleSlice(&slice).ok());
  return std::string(reinterpret_cast<const char*>(slice.begin()), slice.size());
}

std::string SomeKv() {
  std::string kv;
  for (int i = 0; i < 30; ++i) kv.push_back(static_cast<char>(i * 9));
  return kv;
}

v1::KvFrame ValidMessage() {
  v1::KvFrame message;
  EXPECT_TRUE(message.ParseFromString(ToString(KvToWire(kFrame, SomeKv()))));
  message.clear_checksum();
  return message;
}

void ExpectRefused(const std::string& bytes, const char* why) {
  const Read read = Parse(SealFrame(bytes));
  EXPECT_EQ(read.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(read.status.message()), HasSubstr(why));
}
void ExpectRefused(const v1::KvFrame& message, const char* why) {
  ExpectRefused(message.SerializeAsString(), why);
}

TEST(KvWire, KeepsAFrameAndEveryByteOfItsKv) {
  const Read read = Parse(KvToWire(kFrame, SomeKv()));
  ASSERT_TRUE(read.status.ok()) << read.status;
  EXPECT_EQ(read.frame, kFrame);
  EXPECT_EQ(read.kv, SomeKv());
}

TEST(KvWire, IsTheMessageOfTheProtoFile) {
  const v1::KvFrame message = ValidMessage();
  EXPECT_EQ(message.next_epoch(), 5u);
  EXPECT_EQ(message.sequence(), 900u);
  EXPECT_EQ(message.kv(), SomeKv());
  EXPECT_TRUE(Parse(SealFrame(message.SerializeAsString())).status.ok());
}

TEST(KvWire, SeesEveryDamagedByteBeforeItReadsAny) {
  const std::string bytes = ToString(KvToWire(kFrame, SomeKv()));
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::string damaged = bytes;
    damaged[i] = static_cast<char>(damaged[i] ^ 4);
    for (const std::string& text : {damaged, bytes.substr(0, i)}) {
      const grpc::Slice slice(text);
      EXPECT_EQ(Parse(grpc::ByteBuffer(&slice, 1)).status.code(), absl::StatusCode::kDataLoss);
    }
  }
}

TEST(KvWire, RefusesWhatIsNoFrame) {
  const std::string bytes = ValidMessage().SerializeAsString();
  for (size_t size = 0; size < bytes.size(); ++size) ExpectRefused(bytes.substr(0, size), "");
  ExpectRefused("", "no values");
  ExpectRefused(bytes + "x", "does not end");
  ExpectRefused(std::string("\x2a\xff\xff\xff\xff\x0f", 6), "does not end");
  ExpectRefused(std::string("\x30\x01", 2), "field 6 is unknown");
  ExpectRefused(std::string("\x0d\x01\x01\x01\x01", 5), "not readable");
  ExpectRefused(std::string("\x08\x80", 2), "not readable");
}

TEST(KvWire, RefusesPositionsAndSizesThatCannotBe) {
  v1::KvFrame message = ValidMessage();
  message.set_first_position(97);
  EXPECT_TRUE(Parse(SealFrame(message.SerializeAsString())).status.ok());
  for (const uint32_t first : {98u, UINT32_MAX}) {
    message.set_first_position(first);
    ExpectRefused(message, "positions from");
  }
  message = ValidMessage();
  message.set_tokens(0);
  ExpectRefused(message, "0 positions");
  for (const uint32_t tokens : {2u, 4u}) {
    message.set_tokens(tokens);
    ExpectRefused(message, "30 bytes");
  }
  message.set_tokens(UINT32_MAX);
  ExpectRefused(message, "positions from");
  ExpectRefused(std::string(MaxKvFrameBytes(kBytesPerToken) + 1, '\0'), "at most");
}

TEST(KvWire, FramesHaveWholePagesWhereTheyFit) {
  EXPECT_EQ(KvFrameTokens(1000), 65u * 64);  // 4 MiB have room for 4194
  EXPECT_EQ(KvFrameTokens(1 << 16), 64u);
  EXPECT_EQ(KvFrameTokens((1 << 16) + 1), 63u);
  EXPECT_EQ(KvFrameTokens(uint64_t{1} << 40), 1u);
  for (const uint64_t bytes_per_token : {uint64_t{1}, uint64_t{1000}, uint64_t{9} << 20}) {
    const uint32_t tokens = KvFrameTokens(bytes_per_token);
    const KvExtentFrame frame{Epoch{UINT64_MAX}, SequenceId{UINT64_MAX}, UINT32_MAX, tokens};
    EXPECT_LE(KvToWire(frame, std::string(tokens * bytes_per_token, 'x')).Length(),
              MaxKvFrameBytes(bytes_per_token));
  }
}

}  // namespace
}  // namespace efedllm
