#include <gmock/gmock.h>
#include <sys/stat.h>

#include <fstream>

#include "common/file.h"
#include "common/openssl_ptr.h"
#include "net/credentials.h"
#include "net/net_world.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

TEST(Certificates, NodeIsItsKey) {
  const std::string key = NewNodeKey();
  const TestCa ca;
  const auto signed_node =
      ca.authority().SignNode(*CertificateRequest(key), absl::Now(), absl::Hours(1));
  ASSERT_TRUE(signed_node.ok()) << signed_node.status();
  EXPECT_EQ(signed_node->node, *NodeOfKey(key));
  EXPECT_NE(*NodeOfKey(key), *NodeOfKey(NewNodeKey()));
}

TEST(Certificates, IdentityExpiresWhenItsCertificateDoes) {
  const TestCa ca;
  const absl::Time now = absl::FromUnixSeconds(absl::ToUnixSeconds(absl::Now()));
  EXPECT_EQ(ca.Node(now, absl::Hours(24 * 90)).expires, now + absl::Hours(24 * 90));
  EXPECT_EQ(ca.Coordinator().node, kCoordinatorNode);
}

TEST(Certificates, IdentityOfAnotherKeyOrCaIsRefused) {
  const TestCa ca;
  const TestCa other;
  const std::string key = NewNodeKey();
  const auto certificate =
      ca.authority().SignNode(*CertificateRequest(key), absl::Now(), absl::Hours(1));
  const std::string& der = certificate->certificate_der;
  EXPECT_TRUE(MakeIdentity(key, der, ca.authority().certificate_pem()).ok());
  EXPECT_THAT(MakeIdentity(NewNodeKey(), der, ca.authority().certificate_pem()).status().ToString(),
              HasSubstr("not for this node's key"));
  EXPECT_THAT(MakeIdentity(key, der, other.authority().certificate_pem()).status().ToString(),
              HasSubstr("not by this coordinator's CA"));
}

TEST(Certificates, GarbageIsInvalidArgument) {
  const TestCa ca;
  const std::string garbage(1000, '\x30');
  EXPECT_TRUE(absl::IsInvalidArgument(NodeOfKey(garbage).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(CertificateRequest("").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      ca.authority().SignNode(garbage, absl::Now(), absl::Hours(1)).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      ca.authority().SignNode(std::string(1 << 20, 'x'), absl::Now(), absl::Hours(1)).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      MakeIdentity(NewNodeKey(), garbage, ca.authority().certificate_pem()).status()));
}

TEST(Certificates, EveryFlippedByteOfARequestIsRefused) {
  const TestCa ca;
  const std::string request = *CertificateRequest(NewNodeKey());
  for (size_t i = 0; i < request.size(); ++i) {
    std::string flipped = request;
    flipped[i] = static_cast<char>(flipped[i] ^ 0x11);
    EXPECT_FALSE(ca.authority().SignNode(flipped, absl::Now(), absl::Hours(1)).ok()) << i;
  }
}

TEST(Certificates, OtherKeysThanEd25519AreRefused) {
  const TestCa ca;
  const openssl::KeyPtr key(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"));
  const auto request = CertificateRequest(openssl::ToPem(key.get()));
  // An EC key needs a digest to sign, so it may already fail here.
  if (request.ok()) {
    EXPECT_FALSE(ca.authority().SignNode(*request, absl::Now(), absl::Hours(1)).ok());
  }
}

TEST(CertificateAuthority, IsTheSameAfterARestart) {
  const TemporaryFolder folder;
  const auto first = CertificateAuthority::OpenOrCreate(folder.path(), absl::Now());
  const auto second = CertificateAuthority::OpenOrCreate(folder.path(), absl::Now());
  ASSERT_TRUE(first.ok() && second.ok()) << first.status() << second.status();
  EXPECT_EQ((*first)->fingerprint(), (*second)->fingerprint());
  struct stat info;
  ASSERT_EQ(stat((folder.path() + "/ca.key").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST(CertificateAuthority, FirstStartThatWasCutShortIsFinished) {
  const TemporaryFolder folder;
  ASSERT_TRUE(WriteFileAtomically(folder.path() + "/ca.key", NewNodeKey(), 0600).ok());
  EXPECT_TRUE(CertificateAuthority::OpenOrCreate(folder.path(), absl::Now()).ok());
}

TEST(CertificateAuthority, DamagedFilesAreNamed) {
  const TemporaryFolder folder;
  ASSERT_TRUE(CertificateAuthority::OpenOrCreate(folder.path(), absl::Now()).ok());
  ASSERT_TRUE(WriteFileAtomically(folder.path() + "/ca.key", NewNodeKey(), 0600).ok());
  EXPECT_THAT(CertificateAuthority::OpenOrCreate(folder.path(), absl::Now()).status().ToString(),
              HasSubstr("do not belong together"));
  std::filesystem::remove(folder.path() + "/ca.key");
  EXPECT_THAT(CertificateAuthority::OpenOrCreate(folder.path(), absl::Now()).status().ToString(),
              HasSubstr("ca.key is missing"));
  ASSERT_TRUE(WriteFileAtomically(folder.path() + "/ca.key", "x", 0600).ok());
  EXPECT_THAT(CertificateAuthority::OpenOrCreate(folder.path(), absl::Now()).status().ToString(),
              HasSubstr("ca.key is damaged"));
  ASSERT_TRUE(WriteFileAtomically(folder.path() + "/ca.key", NewNodeKey(), 0600).ok());
  ASSERT_TRUE(WriteFileAtomically(folder.path() + "/ca.crt", "x", 0644).ok());
  EXPECT_THAT(CertificateAuthority::OpenOrCreate(folder.path(), absl::Now()).status().ToString(),
              HasSubstr("ca.crt is damaged"));
}

TEST(CertificateAuthority, NamesAClockThatIsTooFarBehind) {
  const TemporaryFolder folder;
  const absl::Time now = absl::FromUnixSeconds(1'800'000'000);
  ASSERT_TRUE(CertificateAuthority::OpenOrCreate(folder.path(), now).ok());
  EXPECT_TRUE(CertificateAuthority::OpenOrCreate(folder.path(), now - absl::Hours(24 * 6)).ok());
  EXPECT_THAT(CertificateAuthority::OpenOrCreate(folder.path(), absl::UnixEpoch() + absl::Hours(5))
                  .status()
                  .ToString(),
              HasSubstr("clock, which says 1970-01-01 05:00 UTC: set the clock"));
}

TEST(CertificateAuthority, ExpiresAfterTwentyYearsWithAClearMessage) {
  const TemporaryFolder folder;
  ASSERT_TRUE(CertificateAuthority::OpenOrCreate(folder.path(), absl::Now()).ok());
  const absl::Time later = absl::Now() + absl::Hours(24 * 365 * 21);
  EXPECT_THAT(CertificateAuthority::OpenOrCreate(folder.path(), later).status().ToString(),
              HasSubstr("has expired"));
}

}  // namespace
}  // namespace efedllm
