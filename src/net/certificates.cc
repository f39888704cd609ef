#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/openssl_ptr.h"
#include "common/status_macros.h"
#include "net/credentials.h"
#include "net/node_dns_name.h"

namespace efedllm {
namespace {

using openssl::CertificatePtr;
using openssl::KeyPtr;

// How far a node's clock may be behind. Nobody gains by a certificate that is valid too early.
constexpr absl::Duration kClockSlack = absl::Hours(7 * 24);
constexpr absl::Duration kCaValidity = absl::Hours(24 * 365 * 20);
constexpr absl::Duration kCoordinatorValidity = absl::Hours(24 * 365 * 10);
constexpr size_t kMaxRequestBytes = 16u << 10;
constexpr size_t kMaxFileBytes = 64u << 10;

Sha256Digest KeyDigest(EVP_PKEY* key) {
  unsigned char* der = nullptr;
  const int size = i2d_PUBKEY(key, &der);
  CHECK(size > 0);
  const Sha256Digest digest = Sha256(absl::MakeConstSpan(der, static_cast<size_t>(size)));
  OPENSSL_free(der);
  return digest;
}

Sha256Digest Fingerprint(X509* certificate) {
  const std::string der = openssl::ToDer(certificate);
  return Sha256(absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(der.data()), der.size()));
}

NodeId NodeOf(EVP_PKEY* key) {
  const Sha256Digest digest = KeyDigest(key);
  NodeId node;
  for (int i = 0; i < 8; ++i) node.v = node.v << 8 | digest[i];
  return node;
}

void AddExtension(X509* certificate, X509* issuer, int id, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  openssl::ExtensionPtr extension(X509V3_EXT_conf_nid(nullptr, &context, id, value.c_str()));
  CHECK(extension != nullptr);
  CHECK(X509_add_ext(certificate, extension.get(), -1) == 1);
}

// A certificate that lacks its issuer, extensions and signature. now: not_before without slack.
CertificatePtr NewCertificate(EVP_PKEY* key, const std::string& common_name, absl::Time not_before,
                              absl::Time not_after) {
  CertificatePtr certificate(X509_new());
  CHECK(certificate != nullptr);
  CHECK(X509_set_version(certificate.get(), X509_VERSION_3) == 1);
  openssl::BigNumberPtr serial(BN_new());  // 127 random bits: positive, and never the same again
  CHECK(BN_rand(serial.get(), 127, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ODD) == 1);
  CHECK(BN_to_ASN1_INTEGER(serial.get(), X509_get_serialNumber(certificate.get())) != nullptr);
  CHECK(ASN1_TIME_set(X509_getm_notBefore(certificate.get()), absl::ToTimeT(not_before)) !=
        nullptr);
  CHECK(ASN1_TIME_set(X509_getm_notAfter(certificate.get()), absl::ToTimeT(not_after)) != nullptr);
  CHECK(X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate.get()), "CN", MBSTRING_ASC,
                                   reinterpret_cast<const unsigned char*>(common_name.c_str()), -1,
                                   -1, 0) == 1);
  CHECK(X509_set_pubkey(certificate.get(), key) == 1);
  return certificate;
}

absl::Time ToTime(const ASN1_TIME* time) {
  std::tm utc = {};
  CHECK(ASN1_TIME_to_tm(time, &utc) == 1);
  return absl::FromTM(utc, absl::UTCTimeZone());
}

absl::Time IssueTime(const X509* certificate) {
  return ToTime(X509_get0_notBefore(certificate)) + kClockSlack;
}
absl::Time NotAfter(const X509* certificate) { return ToTime(X509_get0_notAfter(certificate)); }

CertificatePtr NewCaCertificate(EVP_PKEY* key, absl::Time now) {
  // The name differs from CA to CA, so that a mix-up is a clear "unknown issuer".
  const Sha256Digest digest = KeyDigest(key);
  CertificatePtr ca = NewCertificate(key, absl::StrCat("eFedLLM CA ", ToHex(digest).substr(0, 16)),
                                     now - kClockSlack, now + kCaValidity);
  CHECK(X509_set_issuer_name(ca.get(), X509_get_subject_name(ca.get())) == 1);
  AddExtension(ca.get(), ca.get(), NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
  AddExtension(ca.get(), ca.get(), NID_key_usage, "critical,keyCertSign,cRLSign");
  AddExtension(ca.get(), ca.get(), NID_subject_key_identifier, "hash");
  CHECK(X509_sign(ca.get(), key, nullptr) > 0);
  return ca;
}

// For daemons, which are servers and clients at once.
absl::StatusOr<CertificatePtr> Issue(absl::string_view ca_key_pem, absl::string_view ca_pem,
                                     EVP_PKEY* key, NodeId node, absl::Time now,
                                     absl::Duration validity) {
  ASSIGN_OR_RETURN(const KeyPtr ca_key, openssl::ParseKey(ca_key_pem));
  ASSIGN_OR_RETURN(const CertificatePtr ca, openssl::ParseCertificatePem(ca_pem));
  CertificatePtr certificate = NewCertificate(key, NodeDnsName(node), now - kClockSlack,
                                              std::min(now + validity, NotAfter(ca.get())));
  CHECK(X509_set_issuer_name(certificate.get(), X509_get_subject_name(ca.get())) == 1);
  X509* leaf = certificate.get();
  AddExtension(leaf, ca.get(), NID_basic_constraints, "critical,CA:FALSE");
  AddExtension(leaf, ca.get(), NID_key_usage, "critical,digitalSignature");
  AddExtension(leaf, ca.get(), NID_ext_key_usage, "serverAuth,clientAuth");
  AddExtension(leaf, ca.get(), NID_subject_alt_name, absl::StrCat("DNS:", NodeDnsName(node)));
  AddExtension(leaf, ca.get(), NID_subject_key_identifier, "hash");
  AddExtension(leaf, ca.get(), NID_authority_key_identifier, "keyid:always");
  CHECK(X509_sign(leaf, ca_key.get(), nullptr) > 0);
  return certificate;
}

absl::Status Damaged(const std::string& path, const std::string& other, const absl::Status& why) {
  return absl::FailedPreconditionError(absl::StrCat(
      path, " is damaged (", why.message(), "): restore it from a backup, or remove it and ", other,
      " for a new CA (all workers must then join again)"));
}

}  // namespace

std::string NewNodeKey() { return openssl::ToPem(openssl::NewEd25519Key().get()); }

absl::StatusOr<std::string> CertificateRequest(absl::string_view key_pem) {
  ASSIGN_OR_RETURN(const KeyPtr key, openssl::ParseKey(key_pem));
  openssl::RequestPtr request(X509_REQ_new());
  CHECK(request != nullptr);
  CHECK(X509_REQ_set_pubkey(request.get(), key.get()) == 1);
  if (X509_REQ_sign(request.get(), key.get(), nullptr) <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the node's key can't sign: ", openssl::TakeError()));
  }
  return openssl::ToDer(request.get());
}

absl::StatusOr<NodeId> NodeOfKey(absl::string_view key_pem) {
  ASSIGN_OR_RETURN(const KeyPtr key, openssl::ParseKey(key_pem));
  return NodeOf(key.get());
}

absl::StatusOr<Identity> MakeIdentity(absl::string_view key_pem, absl::string_view certificate_der,
                                      absl::string_view ca_pem) {
  ASSIGN_OR_RETURN(const KeyPtr key, openssl::ParseKey(key_pem));
  ASSIGN_OR_RETURN(const CertificatePtr certificate, openssl::ParseCertificateDer(certificate_der));
  ASSIGN_OR_RETURN(const CertificatePtr ca, openssl::ParseCertificatePem(ca_pem));
  const NodeId node = NodeOf(key.get());
  if (X509_check_private_key(certificate.get(), key.get()) != 1 ||
      X509_check_host(certificate.get(), NodeDnsName(node).c_str(), 0, 0, nullptr) != 1) {
    openssl::TakeError();
    return absl::InvalidArgumentError("the certificate is not for this node's key");
  }
  if (X509_check_issued(ca.get(), certificate.get()) != X509_V_OK ||
      X509_verify(certificate.get(), X509_get0_pubkey(ca.get())) != 1) {
    openssl::TakeError();
    return absl::InvalidArgumentError("the certificate is not by this coordinator's CA");
  }
  return Identity{.node = node,
                  .key_pem = std::string(key_pem),
                  .certificate_pem = openssl::ToPem(certificate.get()),
                  .ca_pem = openssl::ToPem(ca.get()),
                  .ca_fingerprint = Fingerprint(ca.get()),
                  .issued = IssueTime(certificate.get()),
                  .expires = NotAfter(certificate.get())};
}

absl::StatusOr<std::unique_ptr<CertificateAuthority>> CertificateAuthority::OpenOrCreate(
    const std::string& dir, absl::Time now) {
  const std::string key_path = absl::StrCat(dir, "/ca.key");
  const std::string certificate_path = absl::StrCat(dir, "/ca.crt");
  RETURN_IF_ERROR(MakeDirectories(dir, 0700));
  absl::StatusOr<std::string> key_pem = ReadFile(key_path, kMaxFileBytes);
  absl::StatusOr<std::string> certificate_pem = ReadFile(certificate_path, kMaxFileBytes);
  if (absl::IsNotFound(key_pem.status()) && absl::IsNotFound(certificate_pem.status())) {
    key_pem = NewNodeKey();
    RETURN_IF_ERROR(WriteFileAtomically(key_path, *key_pem, 0600));
  }
  if (absl::IsNotFound(key_pem.status())) {
    return absl::FailedPreconditionError(
        absl::StrCat(key_path, " is missing: restore it from a backup, or remove ",
                     certificate_path, " for a new CA (all workers must then join again)"));
  }
  if (!key_pem.ok()) return key_pem.status();
  const absl::StatusOr<KeyPtr> key = openssl::ParseKey(*key_pem);
  if (!key.ok()) return Damaged(key_path, certificate_path, key.status());
  if (absl::IsNotFound(certificate_pem.status())) {  // first start, or one cut short after the key
    certificate_pem = openssl::ToPem(NewCaCertificate(key->get(), now).get());
    RETURN_IF_ERROR(WriteFileAtomically(certificate_path, *certificate_pem, 0644));
  }
  if (!certificate_pem.ok()) return certificate_pem.status();
  const absl::StatusOr<CertificatePtr> parsed = openssl::ParseCertificatePem(*certificate_pem);
  if (!parsed.ok()) return Damaged(certificate_path, key_path, parsed.status());
  X509* ca = parsed->get();
  if (X509_check_private_key(ca, key->get()) != 1) {
    openssl::TakeError();
    return absl::FailedPreconditionError(absl::StrCat(key_path, " and ", certificate_path,
                                                      " do not belong together: restore both from "
                                                      "a backup, or remove both for a new CA"));
  }
  if (now < ToTime(X509_get0_notBefore(ca))) {
    return absl::FailedPreconditionError(
        absl::StrCat(certificate_path, " is not valid yet by this machine's clock, which says ",
                     FormatWallClock(now), ": set the clock"));
  }
  if (NotAfter(ca) <= now) {
    return absl::FailedPreconditionError(
        absl::StrCat(certificate_path, " has expired by this machine's clock, which says ",
                     FormatWallClock(now), ": set the clock, or remove it and ", key_path,
                     " for a new CA (all workers must then join again)"));
  }
  auto authority = std::unique_ptr<CertificateAuthority>(new CertificateAuthority);
  authority->key_pem_ = *std::move(key_pem);
  authority->certificate_pem_ = openssl::ToPem(ca);
  return authority;
}

Sha256Digest CertificateAuthority::fingerprint() const {
  const absl::StatusOr<CertificatePtr> ca = openssl::ParseCertificatePem(certificate_pem_);
  CHECK(ca.ok());
  return Fingerprint(ca->get());
}

const std::string& CertificateAuthority::certificate_pem() const { return certificate_pem_; }

absl::StatusOr<CertificateAuthority::Signed> CertificateAuthority::SignNode(
    absl::string_view certificate_request_der, absl::Time now, absl::Duration validity) const {
  if (certificate_request_der.size() > kMaxRequestBytes) {
    return absl::InvalidArgumentError("the certificate request is too long");
  }
  auto* in = reinterpret_cast<const unsigned char*>(certificate_request_der.data());
  openssl::RequestPtr request(
      d2i_X509_REQ(nullptr, &in, static_cast<long>(certificate_request_der.size())));
  if (request == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("not a certificate request (PKCS #10): ", openssl::TakeError()));
  }
  EVP_PKEY* key = X509_REQ_get0_pubkey(request.get());
  if (key == nullptr || EVP_PKEY_get_base_id(key) != EVP_PKEY_ED25519) {
    openssl::TakeError();
    return absl::InvalidArgumentError("the certificate request is not for an Ed25519 key");
  }
  if (X509_REQ_verify(request.get(), key) != 1) {
    openssl::TakeError();
    return absl::InvalidArgumentError("the certificate request is not signed by its own key");
  }
  const NodeId node = NodeOf(key);
  if (node == kCoordinatorNode) return absl::InvalidArgumentError("this key's node id is reserved");
  ASSIGN_OR_RETURN(const CertificatePtr certificate,
                   Issue(key_pem_, certificate_pem_, key, node, now, validity));
  return Signed{.node = node, .certificate_der = openssl::ToDer(certificate.get())};
}

absl::StatusOr<Identity> CertificateAuthority::CoordinatorIdentity(absl::Time now) const {
  const KeyPtr key = openssl::NewEd25519Key();
  ASSIGN_OR_RETURN(
      const CertificatePtr certificate,
      Issue(key_pem_, certificate_pem_, key.get(), kCoordinatorNode, now, kCoordinatorValidity));
  return Identity{.node = kCoordinatorNode,
                  .key_pem = openssl::ToPem(key.get()),
                  .certificate_pem = openssl::ToPem(certificate.get()),
                  .ca_pem = certificate_pem_,
                  .ca_fingerprint = fingerprint(),
                  .issued = IssueTime(certificate.get()),
                  .expires = NotAfter(certificate.get())};
}

}  // namespace efedllm
