#include "net/address.h"

#include <gtest/gtest.h>

namespace efedllm {
namespace {

TEST(Address, ParsesNamesAndBothIpVersions) {
  EXPECT_EQ(ParseHostPort("server:7070")->host, "server");
  EXPECT_EQ(ParseHostPort("10.0.0.1:0")->port, 0);
  EXPECT_EQ(ParseHostPort("[fe80::1]:65535")->host, "fe80::1");
  EXPECT_EQ(FormatHostPort(*ParseHostPort("[::1]:80")), "[::1]:80");
  EXPECT_EQ(FormatHostPort(*ParseHostPort("a:80")), "a:80");
}

TEST(Address, RefusesEverythingElse) {
  for (const char* text : {"", ":", "host", "host:", ":80", "[]:80", "::1:80", "host:-1", "host:+1",
                           "host: 1", "host:65536", "host:1x", "dns:///host:80"}) {
    EXPECT_FALSE(ParseHostPort(text).ok()) << text;
  }
  EXPECT_FALSE(ParseHostPort(std::string(10000, 'a') + ":80").ok());
}

TEST(Address, KnowsLoopback) {
  for (const char* text :
       {"127.0.0.1:1", "127.255.3.4:1", "[::1]:1", "localhost:1", "[::ffff:127.0.0.1]:1"}) {
    EXPECT_TRUE(IsLoopback(text)) << text;
  }
  for (const char* text : {"0.0.0.0:1", "[::]:1", "128.0.0.1:1", "localhost.example.com:1",
                           "127.0.0.1.example.com:1", "127.0.0.1", "[fe80::1]:1", ":1"}) {
    EXPECT_FALSE(IsLoopback(text)) << text;
  }
}

}  // namespace
}  // namespace efedllm
