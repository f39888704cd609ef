#include "common/openssl_ptr.h"

#include <openssl/err.h>
#include <openssl/pem.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace efedllm::openssl {
namespace {

constexpr size_t kMaxEncodedBytes = 64u << 10;  // keys and certificates are a few hundred

// Without it OpenSSL would ask on the terminal.
int NoPassphrase(char*, int, int, void*) { return -1; }

template <class Object, class Encode>
std::string Der(Object* object, Encode encode) {
  const int size = encode(object, nullptr);
  CHECK(size > 0);
  std::string der(static_cast<size_t>(size), '\0');
  auto* out = reinterpret_cast<unsigned char*>(der.data());
  CHECK(encode(object, &out) == size);
  return der;
}

std::string Contents(const BioPtr& bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  CHECK(size > 0);
  return std::string(data, static_cast<size_t>(size));
}

}  // namespace

std::string TakeError() {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  if (code == 0) return "no details";
  const char* reason = ERR_reason_error_string(code);
  return reason != nullptr ? reason : absl::StrCat("OpenSSL error ", code);
}

KeyPtr NewEd25519Key() {
  KeyPtr key(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  CHECK(key != nullptr);
  return key;
}

absl::StatusOr<KeyPtr> ParseKey(absl::string_view pem) {
  if (pem.size() > kMaxEncodedBytes)
    return absl::InvalidArgumentError("not a private key: too long");
  BioPtr bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  CHECK(bio != nullptr);
  KeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassphrase, nullptr));
  if (key == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("not a private key in PEM form: ", TakeError()));
  }
  return key;
}

absl::StatusOr<CertificatePtr> ParseCertificatePem(absl::string_view pem) {
  if (pem.size() > kMaxEncodedBytes)
    return absl::InvalidArgumentError("not a certificate: too long");
  BioPtr bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  CHECK(bio != nullptr);
  CertificatePtr certificate(PEM_read_bio_X509(bio.get(), nullptr, NoPassphrase, nullptr));
  if (certificate == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("not a certificate in PEM form: ", TakeError()));
  }
  return certificate;
}

absl::StatusOr<CertificatePtr> ParseCertificateDer(absl::string_view der) {
  if (der.size() > kMaxEncodedBytes)
    return absl::InvalidArgumentError("not a certificate: too long");
  auto* in = reinterpret_cast<const unsigned char*>(der.data());
  CertificatePtr certificate(d2i_X509(nullptr, &in, static_cast<long>(der.size())));
  if (certificate == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("not a certificate in DER form: ", TakeError()));
  }
  return certificate;
}

std::string ToPem(EVP_PKEY* key) {
  BioPtr bio(BIO_new(BIO_s_mem()));
  CHECK(bio != nullptr);
  CHECK(PEM_write_bio_PKCS8PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) == 1);
  return Contents(bio);
}

std::string ToPem(X509* certificate) {
  BioPtr bio(BIO_new(BIO_s_mem()));
  CHECK(bio != nullptr);
  CHECK(PEM_write_bio_X509(bio.get(), certificate) == 1);
  return Contents(bio);
}

std::string ToDer(X509* certificate) { return Der(certificate, i2d_X509); }
std::string ToDer(X509_REQ* request) { return Der(request, i2d_X509_REQ); }

}  // namespace efedllm::openssl
