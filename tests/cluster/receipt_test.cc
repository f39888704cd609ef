#include "cluster/receipt.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "common/file.h"
#include "common/signing.h"

namespace efedllm {
namespace {

SigningKey NewKey(const std::string& name) {
  return SigningKey::OpenOrCreate(testing::TempDir() + "/receipt_test_" + name + ".key").value();
}

Receipt SomeReceipt(const SigningKey& key) {
  Receipt receipt;
  receipt.node = NodeOfPublicKey(key.public_key());
  receipt.epoch = Epoch{3};
  receipt.stage = 1;
  receipt.layers = {2, 5};
  receipt.number = 7;
  receipt.manifest = RowDigest(1, "manifest");
  receipt.chunks.push_back({SequenceId{9}, 64, 64, {RowDigest(1, "in"), 2, 640}, {}});
  receipt.chunks.push_back({SequenceId{9}, 128, 3, {}, {RowDigest(1, "out"), 3, 12}});
  receipt.compute_micros = 11;
  receipt.wait_micros = 12;
  return receipt;
}

TEST(Receipt, IsItsNodesAlone) {
  const SigningKey key = NewKey("own"), other = NewKey("other");
  SignedReceipt receipt = SignReceipt(SomeReceipt(key), key);
  EXPECT_TRUE(VerifyReceipt(receipt, key.public_key()));
  EXPECT_FALSE(VerifyReceipt(receipt, other.public_key()));
  // Signed by another key, in this node's name.
  EXPECT_FALSE(VerifyReceipt(SignReceipt(SomeReceipt(key), other), other.public_key()));
  receipt.signature[5] ^= 1;
  EXPECT_FALSE(VerifyReceipt(receipt, key.public_key()));
}

TEST(Receipt, EveryFieldIsSigned) {
  const SigningKey key = NewKey("own");
  const Receipt receipt = SomeReceipt(key);
  std::set<std::string> texts = {CanonicalBytes(receipt)};
  const auto differs = [&](auto change) {
    Receipt other = receipt;
    change(other);
    return texts.insert(CanonicalBytes(other)).second;
  };
  EXPECT_TRUE(differs([](Receipt& r) { r.node.v ^= 1; }));
  EXPECT_TRUE(differs([](Receipt& r) { ++r.epoch.v; }));
  EXPECT_TRUE(differs([](Receipt& r) { ++r.stage; }));
  EXPECT_TRUE(differs([](Receipt& r) { ++r.layers.first; }));
  EXPECT_TRUE(differs([](Receipt& r) { ++r.layers.last; }));
  EXPECT_TRUE(differs([](Receipt& r) { ++r.number; }));
  EXPECT_TRUE(differs([](Receipt& r) { r.manifest[31] ^= 1; }));
  EXPECT_TRUE(differs([](Receipt& r) { r.chunks.pop_back(); }));
  EXPECT_TRUE(differs([](Receipt& r) { ++r.chunks[0].sequence.v; }));
  EXPECT_TRUE(differs([](Receipt& r) { ++r.chunks[0].first_position; }));
  EXPECT_TRUE(differs([](Receipt& r) { ++r.chunks[1].tokens; }));
  EXPECT_TRUE(differs([](Receipt& r) { r.chunks[1].inputs.digest[0] ^= 1; }));
  EXPECT_TRUE(differs([](Receipt& r) { ++r.chunks[1].inputs.codec; }));
  EXPECT_TRUE(differs([](Receipt& r) { ++r.chunks[1].inputs.bytes; }));
  EXPECT_TRUE(differs([](Receipt& r) { r.chunks[1].outputs.digest[0] ^= 1; }));
  EXPECT_TRUE(differs([](Receipt& r) { ++r.chunks[1].outputs.codec; }));
  EXPECT_TRUE(differs([](Receipt& r) { ++r.chunks[1].outputs.bytes; }));
  EXPECT_TRUE(differs([](Receipt& r) { ++r.compute_micros; }));
  EXPECT_TRUE(differs([](Receipt& r) { ++r.wait_micros; }));
}

TEST(Receipt, ManifestsOfOtherWeightsCodecsOrNumericsDiffer) {
  Manifest manifest;
  manifest.numerics = 2;
  manifest.layers = {0, 4};
  manifest.tensors = {RowDigest(1, "a"), RowDigest(1, "b")};
  std::set<Sha256Digest> digests = {ManifestDigest(manifest)};
  const auto differs = [&](auto change) {
    Manifest other = manifest;
    change(other);
    return digests.insert(ManifestDigest(other)).second;
  };
  EXPECT_TRUE(differs([](Manifest& m) { ++m.numerics; }));
  EXPECT_TRUE(differs([](Manifest& m) { m.layers.last = 5; }));
  EXPECT_TRUE(differs([](Manifest& m) { m.kv_type = static_cast<KvType>(2); }));
  EXPECT_TRUE(differs([](Manifest& m) { m.input_codec = 3; }));
  EXPECT_TRUE(differs([](Manifest& m) { m.output_codec = 3; }));
  EXPECT_TRUE(differs([](Manifest& m) { m.input_basis = Sha256Digest{}; }));
  EXPECT_TRUE(differs([](Manifest& m) { m.output_basis = Sha256Digest{}; }));
  EXPECT_TRUE(differs([](Manifest& m) { std::swap(m.tensors[0], m.tensors[1]); }));
  EXPECT_TRUE(differs([](Manifest& m) { m.config.rope.base = 2; }));
  EXPECT_TRUE(differs([](Manifest& m) { m.config.experts_used = 2; }));
}

TEST(Receipt, ARowsDigestIsOfItsCodecAndItsBytes) {
  EXPECT_NE(RowDigest(1, "row"), RowDigest(2, "row"));
  EXPECT_NE(RowDigest(1, "row"), RowDigest(1, "rows"));
  const std::string text("\x03\x02\x01\x00row", 7);
  EXPECT_EQ(RowDigest(0x010203, "row"),
            Sha256({reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
  EXPECT_EQ(DigestOfRows({CodedRow{1, "a"}, CodedRow{2, "b"}}),
            ChunkDigest({RowDigest(1, "a"), RowDigest(2, "b")}));
}

}  // namespace
}  // namespace efedllm
