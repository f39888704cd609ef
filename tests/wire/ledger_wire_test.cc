#include "wire/ledger_wire.h"

#include <gtest/gtest.h>

#include <string>

#include "wire/wire_cases.h"

namespace efedllm {
namespace {

SignedLedgerHead SomeHead() {
  SignedLedgerHead head;
  head.head.ledger.fill(1);
  head.head.size = 77;
  head.head.root.fill(2);
  head.head.chain.fill(3);
  head.head.time_micros = -5;
  head.key.fill(4);
  head.signature.fill(5);
  return head;
}

TEST(LedgerWire, KeepsAnOffer) {
  LedgerHeadOffer offer{SomeHead(), MerkleProof(3)};
  offer.proof[1].fill(9);
  EXPECT_EQ(FromWire(ToWire(offer)).value(), offer);
  EXPECT_EQ(FromWire(ToWire(LedgerHeadOffer{SomeHead(), {}})).value().proof.size(), 0u);
}

TEST(LedgerWire, KeepsWhatAWorkerHolds) {
  for (const HeldLedgerHead& held :
       {HeldLedgerHead{}, HeldLedgerHead{SomeHead(), ""}, HeldLedgerHead{SomeHead(), "a fork"}}) {
    EXPECT_EQ(FromWire(ToWire(held)).value(), held);
  }
}

TEST(LedgerWire, RefusesWhatNoHeadCanBe) {
  ExpectRefused<LedgerHeadOffer, v1::LedgerHeadOffer>(
      {SomeHead(), MerkleProof(2)},
      {{"ledger", [](auto& m) { m.clear_head(); }},
       {"ledger", [](auto& m) { m.mutable_head()->set_ledger("short"); }},
       {"size", [](auto& m) { m.mutable_head()->set_size(0); }},
       {"size", [](auto& m) { m.mutable_head()->set_size(UINT64_MAX); }},
       {"root", [](auto& m) { m.mutable_head()->clear_root(); }},
       {"chain", [](auto& m) { m.mutable_head()->set_chain(std::string(33, 'x')); }},
       {"key", [](auto& m) { m.mutable_head()->set_key(std::string(31, 'x')); }},
       {"signature", [](auto& m) { m.mutable_head()->set_signature(std::string(63, 'x')); }},
       {"proof", [](auto& m) { m.set_proof(1, "x"); }},
       {"proof", [](auto& m) {
          for (size_t i = 0; i < kMaxMerkleProof; ++i) m.add_proof(std::string(32, 'x'));
        }}});
  ExpectRefused<HeldLedgerHead, v1::HeldLedgerHead>(
      {SomeHead(), ""}, {{"root", [](auto& m) { m.mutable_head()->set_root("x"); }}});
}

TEST(LedgerWire, ShowsOfARefusalWhatATerminalMayShow) {
  v1::HeldLedgerHead message;
  message.set_refusal("no\x1b[2J" + std::string(2000, 'x'));
  const HeldLedgerHead held = FromWire(message).value();
  EXPECT_EQ(held.refusal.find('\x1b'), std::string::npos);
  EXPECT_LT(held.refusal.size(), 600u);
}

}  // namespace
}  // namespace efedllm
