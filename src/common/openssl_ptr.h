// OpenSSL's objects as unique_ptr, its errors as text, keys and certificates as strings. For the
// .cc files that call OpenSSL.
#ifndef EFEDLLM_COMMON_OPENSSL_PTR_H_
#define EFEDLLM_COMMON_OPENSSL_PTR_H_

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace efedllm::openssl {

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* object) const {
    Free(object);
  }
};

using BioPtr = std::unique_ptr<BIO, Deleter<BIO_free_all>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY_free>>;
using DigestContextPtr = std::unique_ptr<EVP_MD_CTX, Deleter<EVP_MD_CTX_free>>;
using CertificatePtr = std::unique_ptr<X509, Deleter<X509_free>>;
using RequestPtr = std::unique_ptr<X509_REQ, Deleter<X509_REQ_free>>;
using ExtensionPtr = std::unique_ptr<X509_EXTENSION, Deleter<X509_EXTENSION_free>>;
using BigNumberPtr = std::unique_ptr<BIGNUM, Deleter<BN_free>>;
using StorePtr = std::unique_ptr<X509_STORE, Deleter<X509_STORE_free>>;
using StoreContextPtr = std::unique_ptr<X509_STORE_CTX, Deleter<X509_STORE_CTX_free>>;

// The oldest error of this thread's queue as text; empties the queue.
std::string TakeError();

KeyPtr NewEd25519Key();
// InvalidArgument: not a key, or one with a passphrase.
absl::StatusOr<KeyPtr> ParseKey(absl::string_view pem);
// InvalidArgument: not a certificate.
absl::StatusOr<CertificatePtr> ParseCertificatePem(absl::string_view pem);
absl::StatusOr<CertificatePtr> ParseCertificateDer(absl::string_view der);

std::string ToPem(EVP_PKEY* key);
std::string ToPem(X509* certificate);
std::string ToDer(X509* certificate);
std::string ToDer(X509_REQ* request);

}  // namespace efedllm::openssl

#endif  // EFEDLLM_COMMON_OPENSSL_PTR_H_
