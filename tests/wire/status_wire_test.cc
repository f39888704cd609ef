#include "wire/status_wire.h"

#include <gtest/gtest.h>

namespace efedllm {
namespace {

TEST(StatusWire, KeepsEveryCodeAndTheMessage) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "it can't, at \"x\"");
    EXPECT_EQ(FromGrpc(ToGrpc(status)), status);
  }
  EXPECT_TRUE(FromGrpc(ToGrpc(absl::OkStatus())).ok());
}

TEST(StatusWire, MakesAPeersMessagePrintableAndBounded) {
  const absl::Status status =
      FromGrpc(grpc::Status(grpc::StatusCode::INTERNAL, "a\x1b[2J\xff" + std::string(5000, 'x')));
  EXPECT_EQ(status.message().substr(0, 12), "a\\x1b[2J\\xff");
  EXPECT_LT(status.message().size(), 1200u);
}

TEST(StatusWire, AnUnknownCodeIsUnknown) {
  EXPECT_EQ(FromGrpc(grpc::Status(static_cast<grpc::StatusCode>(20), "")).code(),
            absl::StatusCode::kUnknown);
}

}  // namespace
}  // namespace efedllm
