// A CA, identities and a gRPC server on loopback, in one line each.
#ifndef EFEDLLM_TESTS_NET_NET_WORLD_H_
#define EFEDLLM_TESTS_NET_NET_WORLD_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "net/credentials.h"

namespace efedllm {

// A folder that goes with the object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "net_test.XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A CA of its own, and nodes with certificates by it.
class TestCa {
 public:
  TestCa() : authority_(*CertificateAuthority::OpenOrCreate(folder_.path(), absl::Now())) {}

  const CertificateAuthority& authority() const { return *authority_; }

  Identity Coordinator() const { return *authority_->CoordinatorIdentity(absl::Now()); }
  Identity Node(absl::Time now = absl::Now(), absl::Duration validity = absl::Hours(1)) const {
    const std::string key = NewNodeKey();
    const auto certificate = authority_->SignNode(*CertificateRequest(key), now, validity);
    return *MakeIdentity(key, certificate->certificate_der, authority_->certificate_pem());
  }

 private:
  TemporaryFolder folder_;
  std::unique_ptr<CertificateAuthority> authority_;
};

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_NET_NET_WORLD_H_
