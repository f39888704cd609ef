#include "coordinator/audit_trial.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>

#include "coordinator/audit_world.h"

namespace efedllm {
namespace {

using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

constexpr SequenceId kA{1}, kB{2};

auto Is(AuditOutcome outcome) { return Field(&AuditResult::outcome, outcome); }

class AuditTrialOf : public ::testing::TestWithParam<CodecId> {};

TEST_P(AuditTrialOf, HonestChunksOfAllStagesAreFoundHonest) {
  AuditWorld world({GetParam()});
  world.Compute(kA, 128);
  world.Compute(kB, 70);
  for (const size_t node : {0u, 1u}) {
    std::vector<AuditJob> jobs = world.Claim(node, kA);
    for (AuditJob& job : world.Claim(node, kB)) jobs.push_back(job);
    const std::vector<AuditResult> results = world.Judge(jobs);
    EXPECT_THAT(results, SizeIs(4));
    EXPECT_THAT(results, Each(Is(AuditOutcome::kHonest)));
  }
  EXPECT_EQ(world.fetches(),
            8);  // the inputs of a sequence's chunks are fetched once, in two parts
}

INSTANTIATE_TEST_SUITE_P(Codecs, AuditTrialOf,
                         ::testing::Values(CodecId::kF32, CodecId::kF16, CodecId::kInt8),
                         [](const auto& info) { return std::string(CodecName(info.param)); });

// What is found of a node that does this to the outputs at position 70 or from there on.
AuditResult Found(AuditWorld& world, const AuditWorld::Cheat& cheat) {
  world.node(1).cheat = cheat;
  world.Compute(kA, 100);
  const std::vector<AuditResult> results = world.Judge(world.Claim(1, kA));
  EXPECT_THAT(results, SizeIs(2));
  const AuditResult* lie = nullptr;
  for (const AuditResult& result : results) {
    const bool later = result.job.claim->claim.first_position == 64;
    EXPECT_EQ(result.outcome, later ? AuditOutcome::kLied : AuditOutcome::kHonest);
    if (later) lie = &result;
  }
  return lie == nullptr ? AuditResult() : *lie;
}

// Position 70 of a step, if it is in it.
float* At70(const Step& step, MatrixRef rows) {
  const SequenceSpan& span = step.spans[0];
  if (span.first_position > 70 || span.first_position + span.tokens <= 70) return nullptr;
  return rows.row(70 - span.first_position);
}

TEST(AuditTrial, OneBitOfOneValueIsProvenAndTakenForAFault) {
  AuditWorld world({CodecId::kF32});
  const AuditResult found = Found(world, [](const Step& step, ConstMatrixRef, MatrixRef outputs) {
    float* row = At70(step, outputs);
    if (row != nullptr) row[17] = std::bit_cast<float>(std::bit_cast<uint32_t>(row[17]) ^ 1);
  });
  EXPECT_TRUE(found.fault);
  EXPECT_THAT(found.detail,
              HasSubstr("flipped bit 0: 1 values in 1 rows differ, the first at position 70, "
                        "dimension 17"));
  ASSERT_TRUE(found.evidence.has_value());
  const auto json = nlohmann::json::parse(*world.evidence().Get(found.evidence->id));
  EXPECT_EQ(json["node"], "0000000000000016");
  EXPECT_EQ(json["difference"]["position"], 70);
  EXPECT_EQ(json["difference"]["bit"], 0);
  EXPECT_THAT(*world.evidence().List(), ElementsAre(found.evidence->id));
}

TEST(AuditTrial, KindsOfLiesAreToldApart) {
  const auto pattern = [](const AuditWorld::Cheat& cheat) {
    AuditWorld world({CodecId::kF32});
    const AuditResult found = Found(world, [&](const Step& step, ConstMatrixRef in, MatrixRef out) {
      if (step.spans[0].first_position + step.spans[0].tokens > 70) cheat(step, in, out);
    });
    EXPECT_FALSE(found.fault);
    return found.detail.substr(0, found.detail.find(':'));
  };
  const auto each_row = [](auto change) {
    return [change](const Step& step, ConstMatrixRef in, MatrixRef out) mutable {
      for (size_t i = 0; i < out.rows; ++i) {
        if (step.spans[0].first_position + i < 70) continue;
        change(absl::MakeConstSpan(in.row(i), in.cols), absl::MakeSpan(out.row(i), out.cols));
      }
    };
  };
  EXPECT_EQ(pattern(each_row([](auto, auto out) { std::fill(out.begin(), out.end(), 0.0f); })),
            "zeros");
  EXPECT_EQ(pattern(each_row([](auto, auto out) { out[3] = -out[3]; })), "sign flip");
  EXPECT_EQ(pattern(each_row([](auto, auto out) {
              for (float& value : out) value *= 1.125f;
            })),
            "scaled");
  EXPECT_EQ(pattern(each_row([](auto, auto out) {
              for (size_t i = 0; i < out.size(); i += 2) out[i] *= 1.001f;
            })),
            "noise");
  EXPECT_EQ(pattern(each_row([](auto, auto out) {
              for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(i) - 9;
            })),
            "other rows");
  EXPECT_EQ(
      pattern(each_row([](auto in, auto out) { std::copy(in.begin(), in.end(), out.begin()); })),
      "layers skipped (2)");
  EXPECT_EQ(pattern(each_row([i = 0u](auto, auto out) mutable {
              float& value = out[i++ % 32];
              value = std::bit_cast<float>(std::bit_cast<uint32_t>(value) ^ (1u << (i % 20)));
            })),
            "flipped bits");
  std::vector<float> first;
  EXPECT_EQ(pattern([&](const Step& step, ConstMatrixRef, MatrixRef out) {
              if (At70(step, out) != nullptr) first.assign(At70(step, out), At70(step, out) + 32);
              for (size_t i = 0; i < out.rows; ++i) {
                if (step.spans[0].first_position + i > 70) {
                  std::copy(first.begin(), first.end(), out.row(i));
                }
              }
            }),
            "copied rows");
}

TEST(AuditTrial, SkippedLastLayersAreRecognised) {
  AuditWorld world({CodecId::kF32});
  StageReplay first_layer({.config = world.config()}, world.Parts().layers, []() -> Compute& {
    static Compute& compute = *new Compute(*Compute::Create(0, "auto"));
    return compute;
  }());
  std::vector<float> inputs;
  const AuditResult found = Found(world, [&](const Step& step, ConstMatrixRef in, MatrixRef out) {
    inputs.insert(inputs.end(), in.span().begin(), in.span().end());
    Matrix rows(inputs.size() / in.cols, in.cols);
    std::copy(inputs.begin(), inputs.end(), rows.row(0));
    ASSERT_TRUE(
        first_layer.Run({2, 3}, KvType::kF32, {static_cast<uint32_t>(rows.rows())}, rows.ref())
            .ok());
    for (size_t i = 0; i < out.rows; ++i) {
      const size_t position = step.spans[0].first_position + i;
      if (position >= 70) std::copy_n(rows.row(position), out.cols, out.row(i));
    }
  });
  EXPECT_THAT(found.detail, HasSubstr("layers skipped (1)"));
}

TEST(AuditTrial, ADigestOfRowsThatNobodySentIsProvenToo) {
  AuditWorld world;
  world.Compute(kA, 30);
  std::vector<AuditJob> jobs = world.Claim(0, kA);
  TakenClaim forged = *jobs[0].claim;
  forged.claim.outputs.digest[5] ^= 4;
  jobs[0].claim = std::make_shared<const TakenClaim>(forged);
  const std::vector<AuditResult> results = world.Judge(jobs);
  EXPECT_THAT(results, ElementsAre(Is(AuditOutcome::kLied)));
  EXPECT_THAT(results[0].detail, HasSubstr("does not show"));
  EXPECT_FALSE(results[0].fault);
}

TEST(AuditTrial, InputsThatAreNotShownProveNothing) {
  AuditWorld world;
  world.Compute(kA, 100);
  const std::vector<AuditJob> jobs = world.Claim(1, kA);
  world.node(1).withholds = true;
  EXPECT_THAT(world.Judge(jobs), Each(Is(AuditOutcome::kWithheld)));
  world.node(1).withholds = false;
  world.node(1).away = true;
  EXPECT_THAT(world.Judge(jobs), Each(Is(AuditOutcome::kLater)));
  world.node(1).away = false;
  std::swap(world.node(1).kept[kA].inputs[3], world.node(1).kept[kA].inputs[4]);
  EXPECT_THAT(world.Judge(jobs), Each(Is(AuditOutcome::kWithheld)));
}

TEST(AuditTrial, AForkNeedsWhatItsParentClaims) {
  AuditWorld world;
  world.Compute(kA, 80);
  world.Fork(kB, kA, 70);
  world.Compute(kB, 20);
  const std::vector<AuditJob> child = world.Claim(1, kB);
  EXPECT_THAT(world.Judge(child), ElementsAre(Is(AuditOutcome::kLater)));
  EXPECT_THAT(world.Judge(child, true), ElementsAre(Is(AuditOutcome::kHonest)));
  world.Claim(1, kA);
  EXPECT_THAT(world.Judge(child), ElementsAre(Is(AuditOutcome::kHonest)));
  // The child's own word is held against what was signed for the parent.
  std::swap(world.node(1).kept[kB].inputs[3], world.node(1).kept[kB].inputs[4]);
  EXPECT_THAT(world.Judge(child), ElementsAre(Is(AuditOutcome::kWithheld)));
}

TEST(AuditTrial, PositionsThatMovedHereComeFromTheUpstreamsOutputs) {
  AuditWorld world;
  world.Compute(kA, 64);
  const auto upstream = world.Claim(0, kA);
  // The second node lost what it had: its claims are of later positions only.
  std::vector<CodedRow>& inputs = world.node(1).kept[kA].inputs;
  const std::vector<CodedRow> lost = inputs;
  world.node(1).kept[kA].claimed = 64;
  world.Compute(kA, 30);
  const auto jobs = world.Claim(1, kA);
  std::vector<AuditResult> results = world.Judge(jobs);
  EXPECT_THAT(results, ElementsAre(Is(AuditOutcome::kHonest)));
  EXPECT_EQ(results[0].detail, "");
}

// --- Verifiers ---

// Verifiers 1 and 2, of other owners than the node that is audited, 22.
struct VerifiedWorld : AuditWorld {
  AuditTrialParts WithVerifiers() {
    AuditTrialParts parts = Parts();
    parts.replayer = this;
    parts.recheck_ppm = recheck_ppm;
    parts.planted_ppm = planted_ppm;
    parts.verifiers = [](const ReceiptStage&) {
      std::vector<AuditVerifier> verifiers;
      for (const uint64_t id : {1u, 2u, 33u, 44u}) {
        const std::string owner = id == 1 ? "carl" : id == 2 ? "dora" : id == 33 ? "bob" : "";
        verifiers.push_back({{NodeId{id}, owner, true, true, TrustState::kTrusted}, "127.0.0.1:1"});
      }
      return verifiers;
    };
    return parts;
  }
  AuditResult Judge(uint32_t tokens = 40) {
    efedllm::Compute compute = *efedllm::Compute::Create(0, "auto");
    AuditTrial trial(WithVerifiers(), compute);
    Compute(kA, tokens);
    return trial.Judge(Claim(1, kA), false)[0];
  }
  // What node 22 does, and verifiers that collude with it.
  void Cheat() {
    node(1).cheat = [](const Step&, ConstMatrixRef, MatrixRef rows) { Flip(rows); };
  }
  void Collude() {
    answers = [](NodeId node, uint32_t layers, MatrixRef rows) {
      if (node != NodeId{22} && layers == 4) Flip(rows);
    };
  }
  static void Flip(MatrixRef rows) {
    for (size_t i = 0; i < rows.rows; ++i) rows.row(i)[0] = -rows.row(i)[0];
  }
  nlohmann::json VerifierLie(const AuditResult& result) {
    const NodeId verifier = result.verifiers.at(0).first;
    return nlohmann::json::parse(
        *evidence().Get(absl::StrCat(EvidenceId(*result.job.claim), "-v", NodeName(verifier))));
  }

  uint64_t recheck_ppm = 0, planted_ppm = 0;
};

auto Verdict(AuditVerdict::Verifier verdict) { return testing::Pair(testing::_, verdict); }

TEST(AuditTrial, ALieIsToldBeforeItsSuspectIsAskedWhereItLied) {
  VerifiedWorld world;
  world.Cheat();
  world.Compute(kA, 40);
  AuditTrialParts parts = world.WithVerifiers();
  std::vector<NodeId> told;
  parts.on_proven = [&](NodeId node) {
    told.push_back(node);
    EXPECT_THAT(world.asked(), Not(Contains(node)));
  };
  efedllm::Compute compute = *efedllm::Compute::Create(0, "auto");
  AuditTrial trial(parts, compute);
  EXPECT_THAT(trial.Judge(world.Claim(1, kA), false), Each(Is(AuditOutcome::kLied)));
  EXPECT_THAT(told, ElementsAre(NodeId{22}));
  EXPECT_THAT(world.asked(), Contains(NodeId{22}));
}

TEST(AuditTrial, AVerifierSparesTheCoordinatorTheWork) {
  VerifiedWorld world;
  const AuditResult result = world.Judge();
  EXPECT_EQ(result.outcome, AuditOutcome::kHonest);
  EXPECT_THAT(result.verifiers, ElementsAre(Verdict(AuditVerdict::Verifier::kUnchecked)));
  EXPECT_THAT(world.asked(), SizeIs(1));
}

TEST(AuditTrial, NobodyOfTheSameOwnerOrOfNoneVerifies) {
  for (int i = 0; i < 20; ++i) {
    VerifiedWorld world;
    world.answers = [](NodeId, uint32_t, MatrixRef rows) { rows.row(0)[0] += 1; };
    world.Judge(5);
    for (const NodeId node : world.asked()) EXPECT_LE(node.v, 2u);
  }
}

TEST(AuditTrial, VerifiersThatSayNothingAreNotNeededAndNotAskedForAWhile) {
  VerifiedWorld world;
  world.silent = true;
  efedllm::Compute compute = *efedllm::Compute::Create(0, "auto");
  AuditTrial trial(world.WithVerifiers(), compute);
  for (int i = 0; i < 4; ++i) {
    world.Compute(kA, 10);
    const std::vector<AuditResult> results = trial.Judge(world.Claim(1, kA), false);
    EXPECT_THAT(results, ElementsAre(Is(AuditOutcome::kHonest)));
    EXPECT_TRUE(results[0].verifiers.empty());
  }
  EXPECT_THAT(world.asked(), SizeIs(2));
  world.clock().Advance(absl::Hours(1));
  world.Compute(kA, 10);
  trial.Judge(world.Claim(1, kA), false);
  EXPECT_THAT(world.asked(), SizeIs(3));
}

TEST(AuditTrial, AVerifierThatAccusesAnHonestNodeIsFoundOut) {
  VerifiedWorld world;
  world.answers = [](NodeId, uint32_t, MatrixRef rows) { rows.row(0)[0] += 1; };
  const AuditResult result = world.Judge();
  EXPECT_EQ(result.outcome, AuditOutcome::kHonest);
  EXPECT_THAT(result.verifiers, SizeIs(2));  // the second lies, too
  EXPECT_THAT(result.verifiers, Each(Verdict(AuditVerdict::Verifier::kLied)));
  const nlohmann::json json = world.VerifierLie(result);
  EXPECT_EQ(json["node"], NodeName(result.verifiers[0].first));
  EXPECT_EQ(json["asked_about"], EvidenceId(*result.job.claim));
  EXPECT_EQ(json["planted"], false);
  EXPECT_EQ(json["difference"]["dimension"], 0);
}

TEST(AuditTrial, AVerifierThatAlwaysSaysFineIsFoundOutWhereItIsChecked) {
  VerifiedWorld world;
  world.recheck_ppm = kWhole;
  world.Cheat();
  world.Collude();
  const AuditResult result = world.Judge();
  EXPECT_EQ(result.outcome, AuditOutcome::kLied);
  EXPECT_THAT(result.verifiers, ElementsAre(Verdict(AuditVerdict::Verifier::kLied)));
  // The suspect was asked as well, and computed right this time.
  const auto json = nlohmann::json::parse(*world.evidence().Get(result.evidence->id));
  EXPECT_EQ(json["suspect"]["answer"], "as the coordinator");
  EXPECT_EQ(json["verifiers"][0]["answer"], "as the claim");
}

TEST(AuditTrial, HonestVerifiersAndTheCoordinatorConvictTogether) {
  VerifiedWorld world;
  world.Cheat();
  const AuditResult result = world.Judge();
  EXPECT_EQ(result.outcome, AuditOutcome::kLied);
  EXPECT_THAT(result.verifiers, SizeIs(2));
  EXPECT_THAT(result.verifiers, Each(Verdict(AuditVerdict::Verifier::kRight)));
}

TEST(AuditTrial, APlantedQuestionFindsWhoDoesNotComputeIt) {
  VerifiedWorld world;
  world.planted_ppm = kWhole;
  AuditResult result = world.Judge();
  EXPECT_EQ(result.outcome, AuditOutcome::kHonest);
  EXPECT_THAT(result.verifiers, ElementsAre(Verdict(AuditVerdict::Verifier::kRight)));
  // One that repeats what the node said that it is audited for.
  world.answers = [&](NodeId, uint32_t layers, MatrixRef rows) {
    if (layers != 4) return;
    const auto claimed = absl::MakeConstSpan(world.node(1).kept[kA].outputs).first(rows.rows);
    ASSERT_TRUE(DecodeRows(claimed, nullptr, rows).ok());
  };
  result = world.Judge();
  EXPECT_EQ(result.outcome, AuditOutcome::kHonest);
  EXPECT_THAT(result.verifiers, ElementsAre(Verdict(AuditVerdict::Verifier::kLied)));
  const nlohmann::json json = world.VerifierLie(result);
  EXPECT_EQ(json["planted"], true);
  EXPECT_GE(json["altered_position"], 40);
}

TEST(AuditTrial, AnAccuserIsFoundByPlantedQuestionsToo) {
  VerifiedWorld world;
  world.planted_ppm = kWhole;
  world.answers = [](NodeId, uint32_t, MatrixRef rows) {
    for (float& value : rows.span()) value += 1;
  };
  const AuditResult result = world.Judge();
  EXPECT_EQ(result.outcome, AuditOutcome::kHonest);
  EXPECT_THAT(result.verifiers, ElementsAre(Verdict(AuditVerdict::Verifier::kLied)));
}

TEST(AuditTrial, ASuspectThatComputesWrongAgainShowsTheLayerAndTheValue) {
  VerifiedWorld world;
  world.recheck_ppm = kWhole;
  world.node(1).cheat = [](const Step&, ConstMatrixRef, MatrixRef rows) { rows.row(0)[0] += 1; };
  world.answers = [](NodeId node, uint32_t layers, MatrixRef rows) {
    if (node == NodeId{22} && layers == 4) rows.row(2)[7] = -rows.row(2)[7];
  };
  const AuditResult result = world.Judge();
  EXPECT_EQ(result.outcome, AuditOutcome::kLied);
  const auto json = nlohmann::json::parse(*world.evidence().Get(result.evidence->id));
  EXPECT_EQ(json["suspect"]["first_layer"], 3);
  EXPECT_EQ(json["suspect"]["difference"]["position"], 2);
  EXPECT_EQ(json["suspect"]["difference"]["dimension"], 7);
  EXPECT_EQ(json["suspect"]["difference"]["bit"], 31);
}

}  // namespace
}  // namespace efedllm
