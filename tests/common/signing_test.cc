#include "common/signing.h"

#include <gtest/gtest.h>
#include <openssl/err.h>
#include <sys/stat.h>

#include <string>

#include "absl/strings/escaping.h"
#include "common/file.h"

namespace efedllm {
namespace {

// RFC 8032, 7.1, test 1: the empty message.
constexpr char kRfcKey[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n"
    "-----END PRIVATE KEY-----\n";

TEST(Signing, SignsAsTheStandardSays) {
  const SigningKey key = SigningKey::FromPem(kRfcKey).value();
  const std::string bytes(key.public_key().begin(), key.public_key().end());
  EXPECT_EQ(absl::BytesToHexString(bytes),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
  const Signature signature = key.Sign("");
  EXPECT_EQ(
      absl::BytesToHexString(std::string(signature.begin(), signature.end())),
      "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9"
      "b46bd25bf5f0595bbe24655141438e7a100b");
  EXPECT_TRUE(Verify(key.public_key(), "", signature));
  EXPECT_FALSE(Verify(key.public_key(), "x", signature));
}

TEST(Signing, AKeyOfNoPointVerifiesNothing) {
  PublicKey key;
  key.fill(0xff);
  EXPECT_FALSE(Verify(key, "", Signature()));
}

// TLS takes what another call left behind for a failure of its own.
TEST(Signing, LeavesNoErrorsToOthersOnTheThread) {
  const SigningKey key = SigningKey::FromPem(kRfcKey).value();
  EXPECT_FALSE(Verify(key.public_key(), "x", Signature()));
  EXPECT_FALSE(SigningKey::FromPem("no key").ok());
  EXPECT_EQ(ERR_peek_error(), 0u);
}

TEST(Signing, KeepsItsKeyToItself) {
  const std::string path = testing::TempDir() + "/signing_test.key";
  std::remove(path.c_str());
  const SigningKey made = SigningKey::OpenOrCreate(path).value();
  struct stat info;
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_EQ(SigningKey::OpenOrCreate(path).value().public_key(), made.public_key());
  ASSERT_TRUE(WriteFileAtomically(path, "no key", 0600).ok());
  EXPECT_EQ(SigningKey::OpenOrCreate(path).status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace efedllm
