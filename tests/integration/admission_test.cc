// Who gets in: tokens, certificates, protocol versions.
#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include "integration/cluster_world.h"
#include "net/credentials.h"
#include "net/join_token.h"
#include "wire/cluster_service.h"
#include "wire/cluster_wire.h"
#include "wire/status_wire.h"

namespace efedllm {
namespace {

using testing::HasSubstr;

// How a worker with this token ends.
absl::Status JoinWith(ClusterWorld& world, const std::string& token) {
  Worker& worker =
      world.Join([&](WorkerOptions& options) { options.token = ParseJoinToken(token).value(); });
  const std::optional<absl::Status> end = worker.Wait(absl::Seconds(20));
  return end.has_value() ? *end : absl::OkStatus();
}

void ExpectRefused(const absl::Status& status, const std::string& why) {
  EXPECT_TRUE(IsRefusal(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(why));
}

TEST(Admission, RefusesABadTokenAndSaysWhich) {
  ClusterWorld world(kSeedlingPath, 1);
  JoinTokens& tokens = world.coordinator().tokens();
  JoinToken forged = ParseJoinToken(world.coordinator().join_token()).value();
  forged.secret[0] = static_cast<char>(forged.secret[0] ^ 1);
  ExpectRefused(JoinWith(world, FormatJoinToken(forged)), "wrong");

  const JoinTokens::Created revoked = tokens.Create(absl::Hours(1), 0).value();
  ASSERT_TRUE(tokens.Revoke(revoked.info.id).ok());
  ExpectRefused(JoinWith(world, revoked.text), "revoked");

  const JoinTokens::Created expired = tokens.Create(absl::Seconds(1), 0).value();
  absl::SleepFor(absl::Milliseconds(2100));
  ExpectRefused(JoinWith(world, expired.text), "expired");

  const JoinTokens::Created once = tokens.Create(absl::Hours(1), 1).value();
  world.Join([&](WorkerOptions& o) { o.token = ParseJoinToken(once.text).value(); });
  ASSERT_TRUE(world.AwaitServing(1));
  ExpectRefused(JoinWith(world, once.text), "spent");

  JoinToken foreign = ParseJoinToken(world.coordinator().join_token()).value();
  foreign.ca_fingerprint[0] ^= 1;
  EXPECT_TRUE(IsRefusal(JoinWith(world, FormatJoinToken(foreign))));
}

// Talks to the coordinator's services with a certificate of its own.
class Stranger : public testing::Test {
 protected:
  void SetUp() override {
    const JoinToken token = ParseJoinToken(world_.coordinator().join_token()).value();
    const std::string ca =
        FetchPinnedCa(world_.join_address(), token.ca_fingerprint, absl::Seconds(10)).value();
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = ca;
    grpc::ChannelArguments arguments;
    arguments.SetSslTargetNameOverride("coordinator.efedllm");
    nobody_ =
        grpc::CreateCustomChannel(world_.join_address(), grpc::SslCredentials(options), arguments);
    request_.set_protocol_version(kProtocolVersion);
    request_.set_token_secret(token.secret);
    key_ = NewNodeKey();
    request_.set_certificate_request(CertificateRequest(key_).value());
    request_.set_name("stranger");
    ca_ = ca;
  }

  absl::StatusOr<std::string> Enrol() {
    grpc::ClientContext context;
    v1::EnrolReply reply;
    const absl::Status status =
        FromGrpc(v1::Enrolment::NewStub(nobody_)->Enrol(&context, request_, &reply));
    if (!status.ok()) return status;
    return reply.certificate();
  }

  // Attaches with this first message; how the stream ends.
  absl::Status AttachWith(const std::shared_ptr<grpc::Channel>& channel,
                          const v1::WorkerMessage& message) {
    auto stub = v1::Cluster::NewStub(channel);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    auto stream = stub->Attach(&context);
    stream->Write(message);
    v1::CoordinatorMessage reply;
    while (stream->Read(&reply)) {
    }
    return FromGrpc(stream->Finish());
  }

  v1::WorkerMessage ValidHello() {
    Hello hello;
    hello.engine_version = "0.1.0";
    hello.name = "stranger";
    hello.profile = NodeProfile{1, 1u << 30, 1e9, 1e9, 1e9};
    hello.hop_address = "127.0.0.1:1";
    hello.public_key = SigningKey::FromPem(key_).value().public_key();
    hello.owner = "somebody else";
    v1::WorkerMessage message;
    *message.mutable_hello() = ToWire(hello);
    return message;
  }

  ClusterWorld world_{kSeedlingPath, 1};
  std::shared_ptr<grpc::Channel> nobody_;
  v1::EnrolRequest request_;
  std::string key_, ca_;
};

TEST_F(Stranger, SaysWhoseKeyItsIs) {
  const Identity identity = MakeIdentity(key_, Enrol().value(), ca_).value();
  const Transport transport = Transport::Tls(identity);
  const auto channel = transport.Dial(world_.join_address(), kCoordinatorNode);
  key_ = NewNodeKey();
  const absl::Status attached = AttachWith(channel, ValidHello());
  EXPECT_TRUE(absl::IsPermissionDenied(attached)) << attached;
  EXPECT_THAT(std::string(attached.message()), HasSubstr("public key"));
}

// A worker can't say that it is somebody's.
TEST_F(Stranger, WorksForWhomItsTokenSays) {
  const JoinTokens::Created token =
      world_.coordinator().tokens().Create(absl::Hours(1), 1, "anna").value();
  request_.set_token_secret(ParseJoinToken(token.text).value().secret);
  request_.set_owner("ben");
  const Identity identity = MakeIdentity(key_, Enrol().value(), ca_).value();
  const Transport transport = Transport::Tls(identity);
  auto stub = v1::Cluster::NewStub(transport.Dial(world_.join_address(), kCoordinatorNode));
  grpc::ClientContext context;
  auto stream = stub->Attach(&context);
  stream->Write(ValidHello());
  EXPECT_TRUE(world_.AwaitStatus([&](const ClusterStatus& status) {
    return std::any_of(status.members.begin(), status.members.end(), [&](const Member& member) {
      return member.node == identity.node && member.hello.owner == "anna";
    });
  }));
  context.TryCancel();
  (void)stream->Finish();
}

TEST_F(Stranger, OfAnotherProtocolVersionIsToldBothVersions) {
  request_.set_protocol_version(kProtocolVersion + 1);
  const absl::Status enrolled = Enrol().status();
  EXPECT_TRUE(absl::IsFailedPrecondition(enrolled)) << enrolled;
  EXPECT_THAT(std::string(enrolled.message()),
              HasSubstr(absl::StrCat("version ", kProtocolVersion)));

  request_.set_protocol_version(kProtocolVersion);
  const Identity identity = MakeIdentity(key_, Enrol().value(), ca_).value();
  const Transport transport = Transport::Tls(identity);
  const auto channel = transport.Dial(world_.join_address(), kCoordinatorNode);
  v1::WorkerMessage hello = ValidHello();
  hello.mutable_hello()->set_protocol_version(kProtocolVersion + 1);
  const absl::Status attached = AttachWith(channel, hello);
  EXPECT_TRUE(absl::IsFailedPrecondition(attached)) << attached;
  EXPECT_THAT(std::string(attached.message()),
              HasSubstr(absl::StrCat("version ", kProtocolVersion)));

  hello = ValidHello();
  hello.mutable_hello()->set_numerics_id(kNumericsId + 1);
  EXPECT_TRUE(absl::IsFailedPrecondition(AttachWith(channel, hello)));
}

TEST_F(Stranger, WithoutACertificateGetsNothingButEnrolment) {
  EXPECT_TRUE(absl::IsUnauthenticated(AttachWith(nobody_, ValidHello())));
  grpc::ClientContext fetch_context;
  v1::TensorChunk chunk;
  auto stub = v1::Cluster::NewStub(nobody_);
  auto fetch = stub->FetchTensor(&fetch_context, v1::FetchTensorRequest());
  EXPECT_FALSE(fetch->Read(&chunk));
  EXPECT_TRUE(absl::IsUnauthenticated(FromGrpc(fetch->Finish())));
  grpc::ClientContext renew_context;
  v1::RenewRequest renew;
  v1::EnrolReply reply;
  EXPECT_TRUE(absl::IsUnauthenticated(FromGrpc(stub->Renew(&renew_context, renew, &reply))));
}

TEST_F(Stranger, MalformedMessagesAreRefusedClearly) {
  request_.set_certificate_request("nonsense");
  EXPECT_TRUE(absl::IsInvalidArgument(Enrol().status()));
  request_.set_certificate_request(std::string(64 << 10, 'x'));
  EXPECT_TRUE(absl::IsInvalidArgument(Enrol().status()));
  request_.set_certificate_request(CertificateRequest(key_).value());
  const Identity identity = MakeIdentity(key_, Enrol().value(), ca_).value();
  const Transport transport = Transport::Tls(identity);
  const auto channel = transport.Dial(world_.join_address(), kCoordinatorNode);

  EXPECT_TRUE(absl::IsInvalidArgument(AttachWith(channel, v1::WorkerMessage())));
  v1::WorkerMessage heartbeat;
  heartbeat.mutable_heartbeat();
  EXPECT_TRUE(absl::IsInvalidArgument(AttachWith(channel, heartbeat)));
  v1::WorkerMessage hello = ValidHello();
  hello.mutable_hello()->set_hop_address("nowhere");
  EXPECT_TRUE(absl::IsInvalidArgument(AttachWith(channel, hello)));

  auto stub = v1::Cluster::NewStub(channel);
  grpc::ClientContext context;
  v1::FetchTensorRequest fetch;
  fetch.set_tensor_id("no such tensor");
  v1::TensorChunk chunk;
  auto stream = stub->FetchTensor(&context, fetch);
  EXPECT_FALSE(stream->Read(&chunk));
  EXPECT_TRUE(absl::IsNotFound(FromGrpc(stream->Finish())));
}

TEST_F(Stranger, RenewsItsOwnCertificateOnly) {
  const Identity identity = MakeIdentity(key_, Enrol().value(), ca_).value();
  const Transport transport = Transport::Tls(identity);
  auto stub = v1::Cluster::NewStub(transport.Dial(world_.join_address(), kCoordinatorNode));
  const auto renew = [&](const std::string& key) {
    grpc::ClientContext context;
    v1::RenewRequest request;
    request.set_certificate_request(CertificateRequest(key).value());
    v1::EnrolReply reply;
    return FromGrpc(stub->Renew(&context, request, &reply));
  };
  EXPECT_TRUE(renew(key_).ok());
  EXPECT_TRUE(absl::IsPermissionDenied(renew(NewNodeKey())));
}

TEST_F(Stranger, WhoseStageFailsIsLeftOutForAWhile) {
  const Identity identity = MakeIdentity(key_, Enrol().value(), ca_).value();
  const Transport transport = Transport::Tls(identity);
  auto stub = v1::Cluster::NewStub(transport.Dial(world_.join_address(), kCoordinatorNode));
  grpc::ClientContext context;
  auto stream = stub->Attach(&context);
  ASSERT_TRUE(stream->Write(ValidHello()));
  v1::CoordinatorMessage message;
  while (stream->Read(&message)) {
    if (!message.has_assignment()) continue;
    StageReport report;
    report.epoch = Epoch{message.assignment().epoch()};
    report.state = StageState::kFailed;
    report.message = "the disk is full";
    v1::WorkerMessage failed;
    *failed.mutable_stage_status() = ToWire(report);
    ASSERT_TRUE(stream->Write(failed));
    break;
  }
  EXPECT_TRUE(world_.AwaitReason("is left out for a while: the disk is full"));
  world_.Join();
  EXPECT_TRUE(world_.AwaitServing(1));
  context.TryCancel();
}

TEST_F(Stranger, WhoNeverBecomesReadyDoesNotKeepOthersFromServing) {
  const Identity identity = MakeIdentity(key_, Enrol().value(), ca_).value();
  const Transport transport = Transport::Tls(identity);
  auto stub = v1::Cluster::NewStub(transport.Dial(world_.join_address(), kCoordinatorNode));
  grpc::ClientContext context;
  auto stream = stub->Attach(&context);
  ASSERT_TRUE(stream->Write(ValidHello()));  // and never a heartbeat
  v1::CoordinatorMessage message;
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_TRUE(message.has_welcome());
  world_.Join();
  EXPECT_TRUE(world_.AwaitServing(1));
  context.TryCancel();
}

}  // namespace
}  // namespace efedllm
