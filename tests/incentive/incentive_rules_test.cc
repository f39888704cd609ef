#include "incentive/incentive_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/random.h"
#include "incentive/penalty.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

std::string ErrorOf(absl::string_view toml) {
  return std::string(ParseIncentiveRules(toml).status().message());
}

// Valid ones, far from the defaults.
IncentiveRules RandomRules(Random& random) {
  while (true) {
    IncentiveRules rules;
    for (const IncentiveRuleField& field : IncentiveRuleFields()) {
      rules.*field.value = field.least + random.Below(field.most - field.least + 1);
    }
    if (ValidateIncentiveRules(rules).ok()) return rules;
  }
}

TEST(IncentiveRules, TheFileInConfigIsTheDefaults) {
  const auto file = ReadFile(EFEDLLM_SOURCE_DIR "/config/incentive.toml", 1 << 20);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(*file, IncentiveRulesToml(IncentiveRules(), /*commented_out=*/true))
      << "write it anew: efedllm-ctl incentive rules --defaults > config/incentive.toml";
  const auto rules = ParseIncentiveRules(*file);
  ASSERT_TRUE(rules.ok()) << rules.status();
  EXPECT_EQ(*rules, IncentiveRules());
}

TEST(IncentiveRules, TheDefaultsAreValid) {
  EXPECT_TRUE(ValidateIncentiveRules(IncentiveRules()).ok());
  EXPECT_EQ(*ParseIncentiveRules(""), IncentiveRules());
}

TEST(IncentiveRules, AnyValidOnesSurviveTheirTextsUnchanged) {
  Random random(20261123);
  for (int i = 0; i < 200; ++i) {
    const IncentiveRules rules = RandomRules(random);
    const auto toml = ParseIncentiveRules(IncentiveRulesToml(rules, /*commented_out=*/false));
    ASSERT_TRUE(toml.ok()) << toml.status();
    EXPECT_EQ(*toml, rules) << i;
    const auto canonical = ParseCanonicalIncentiveRules(CanonicalIncentiveRules(rules));
    ASSERT_TRUE(canonical.ok()) << canonical.status();
    EXPECT_EQ(*canonical, rules) << i;
  }
}

TEST(IncentiveRules, EveryFieldChangesTheDigest) {
  const Sha256Digest digest = IncentiveRulesDigest(IncentiveRules());
  for (const IncentiveRuleField& field : IncentiveRuleFields()) {
    IncentiveRules rules;
    ++(rules.*field.value);
    EXPECT_NE(IncentiveRulesDigest(rules), digest) << field.key;
  }
}

TEST(IncentiveRules, EveryFieldIsHeldWithinItsBounds) {
  for (const IncentiveRuleField& field : IncentiveRuleFields()) {
    const std::string table = *field.table == 0 ? "" : absl::StrCat("[", field.table, "]\n");
    for (const std::string value : {"-1", "1e30", "nan", "inf", "-inf", "\"1\"", "true", "[1]",
                                    "9223372036854775807", "1979-05-27"}) {
      const std::string error = ErrorOf(absl::StrCat(table, field.key, " = ", value));
      EXPECT_THAT(error, HasSubstr(absl::StrCat("line ", table.empty() ? 1 : 2, ": ")));
      EXPECT_THAT(error, HasSubstr(field.key));
    }
    for (const uint64_t value : {field.least - 1, field.most + 1}) {
      if (value > field.most && value < field.least) continue;
      IncentiveRules rules;
      rules.*field.value = value;
      EXPECT_FALSE(ValidateIncentiveRules(rules).ok()) << field.key << " " << value;
    }
  }
}

TEST(IncentiveRules, UnknownNamesAreRefusedWithTheirLine) {
  EXPECT_EQ(ErrorOf("version = 2\n[audit]\nflor = 0.1\n"), "line 3: audit.flor is not known here");
  EXPECT_EQ(ErrorOf("\nfloor = 0.1\n"), "line 2: floor is not known here");
  EXPECT_EQ(ErrorOf("[audits]\n"), "line 1: there is no table [audits]");
  EXPECT_EQ(ErrorOf("[[audit]]\nfloor = 0.1\n"), "line 1: audit must not be a list");
  EXPECT_EQ(ErrorOf("[audit]\n[audit.more]\n"), "line 2: audit.more must be a single value");
  EXPECT_EQ(ErrorOf("[audit]\nfloor = 0.2\n"), "");
  EXPECT_THAT(ErrorOf("[audit]\nfloor = 0.1\nfloor = 0.2\n"), HasSubstr("line 3: not TOML"));
}

TEST(IncentiveRules, WhatContradictsItselfIsRefused) {
  EXPECT_THAT(ErrorOf("[trust]\nprobation-again-below = 0.95\n"), HasSubstr("less than"));
  // At one audit in a hundred a lie costs far more than 128 chunks.
  EXPECT_THAT(ErrorOf("[audit]\nfloor = 0.01\n"), HasSubstr("escrow.chunks is 128"));
  EXPECT_EQ(ErrorOf("[audit]\nfloor = 0.01\nrecheck = 1\n[escrow]\nchunks = 198\n"), "");
  EXPECT_NE(ErrorOf("[audit]\nfloor = 0.01\nrecheck = 1\n[escrow]\nchunks = 197\n"), "");
}

TEST(IncentiveRules, HostileTextsAreRefusedAndNotNestedDeep) {
  std::string dots = "[a";
  for (int i = 0; i < 30'000; ++i) dots += ".a";
  EXPECT_THAT(ErrorOf(dots + "]"), HasSubstr("line 1"));
  EXPECT_THAT(ErrorOf("\"#\"" + dots.substr(2) + " = 1"), HasSubstr("dots"));
  EXPECT_THAT(ErrorOf("a = " + std::string(60'000, '[')), HasSubstr("line 1"));
  EXPECT_THAT(ErrorOf(std::string(100'000, ' ')), HasSubstr("at most"));
  for (const std::string quotes : {"\"\"\"", "\'\'\'"}) {
    const std::string text = "a = [" + quotes + "\n#" + quotes + ", {" + dots.substr(1) + " = 1}]";
    EXPECT_THAT(ErrorOf(text), HasSubstr("several lines"));
  }
  for (const std::string header : {"[", "[\n[a]", "[[\n", "[ \t", "[^a]", "[.a]", "[]", "\t[,",
                                   "\xc2\xa0[^", "\xef\xbb\xbf[^", "\v[^", "\r[^"}) {
    EXPECT_THAT(ErrorOf("version = 2\n" + header), HasSubstr("line 2: not TOML")) << header;
  }
  EXPECT_THAT(ErrorOf("\xff\xfe"), HasSubstr("not TOML"));
  EXPECT_THAT(ErrorOf(absl::string_view("\0", 1)), HasSubstr("not TOML"));
}

TEST(IncentiveRules, OnlyGoForward) {
  IncentiveRules current;
  current.version = 5;
  IncentiveRules next = current;
  EXPECT_TRUE(CheckIncentiveRulesSuccessor(current, next).ok());
  next.audit_floor_ppm = 200'000;
  EXPECT_THAT(std::string(CheckIncentiveRulesSuccessor(current, next).message()),
              HasSubstr("set version = 6"));
  next.version = 4;
  EXPECT_FALSE(CheckIncentiveRulesSuccessor(current, next).ok());
  next.version = 6;
  EXPECT_TRUE(CheckIncentiveRulesSuccessor(current, next).ok());
}

TEST(IncentiveRules, DamagedCanonicalTextIsDataLoss) {
  const std::string text = CanonicalIncentiveRules(IncentiveRules());
  for (size_t i = 0; i < text.size(); ++i) {
    std::string damaged = text;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    const auto rules = ParseCanonicalIncentiveRules(damaged);
    // A digit may become another, within its bounds: then the text is that of other rules.
    if (rules.ok()) EXPECT_NE(*rules, IncentiveRules()) << i;
  }
  EXPECT_EQ(ParseCanonicalIncentiveRules("").status().code(), absl::StatusCode::kDataLoss);
}

TEST(Penalty, MakesCheatingALossAtEveryRate) {
  Random random(7);
  for (int i = 0; i < 10'000; ++i) {
    const IncentiveRules rules = RandomRules(random);
    const uint64_t p = 1000 + random.Below(kWhole - 1000 + 1);
    const uint64_t d = 10'000 + random.Below(kWhole - 10'000 + 1);
    const auto pay = static_cast<int64_t>(1 + random.Below(1'000'000'000));
    const int64_t penalty = PenaltyMicros(rules, pay, p, d);
    const double found = static_cast<double>(p) * static_cast<double>(d) * 1e-12;
    const double expected =
        (1 - found) * static_cast<double>(pay) - found * static_cast<double>(penalty);
    EXPECT_LE(expected, 1e-6 * static_cast<double>(pay)) << "seed 7, case " << i;
  }
}

TEST(Penalty, IsTheFormulaInMillionths) {
  IncentiveRules rules;
  rules.penalty_least_ppm = 0;
  rules.penalty_margin_ppm = kWhole;
  EXPECT_EQ(PenaltyMultiplePpm(rules, 100'000, kWhole), 9 * kWhole);
  EXPECT_EQ(PenaltyMultiplePpm(rules, 50'000, kWhole), 19 * kWhole);
  EXPECT_EQ(PenaltyMultiplePpm(rules, kWhole, kWhole), 0u);
  EXPECT_EQ(PenaltyMicros(rules, 3, 700'000, kWhole), 2);  // 1.28..., rounded up
  rules.penalty_least_ppm = 10 * kWhole;
  EXPECT_EQ(PenaltyMultiplePpm(rules, kWhole, kWhole), 10 * kWhole);
  EXPECT_EQ(PenaltyMicros(rules, std::numeric_limits<int64_t>::max(), 1, 1),
            std::numeric_limits<int64_t>::max());
}

TEST(Penalty, TakesWhatIsThereAndNoMore) {
  const PenaltySources sources = CollectPenalty(100, 70, 20);
  EXPECT_EQ(sources.from_escrow, 70);
  EXPECT_EQ(sources.from_balance, 20);
  EXPECT_EQ(sources.uncollected, 10);
  EXPECT_EQ(CollectPenalty(50, 70, 20).from_escrow, 50);
  EXPECT_EQ(CollectPenalty(50, 70, 20).from_balance, 0);
  EXPECT_EQ(CollectPenalty(50, -5, -7).uncollected, 50);
}

TEST(Penalty, SaysWhenARareCheatIsFound) {
  EXPECT_EQ(BadChunksUntilFound(1, 1, 0.99), 1u);
  EXPECT_EQ(BadChunksUntilFound(0.5, 1, 0.75), 2u);
  EXPECT_EQ(BadChunksUntilFound(0.1, 1, 0.95), 29u);
  EXPECT_EQ(ChunksUntilFound(0.1, 1, 0.95, 50), 1450u);
}

}  // namespace
}  // namespace efedllm
