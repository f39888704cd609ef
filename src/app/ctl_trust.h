// What `efedllm-ctl status` shows of trust, audits and the ledger.
#ifndef EFEDLLM_APP_CTL_TRUST_H_
#define EFEDLLM_APP_CTL_TRUST_H_

#include <nlohmann/json.hpp>

#include "wire/admin_service.h"

namespace efedllm {

nlohmann::json TrustJson(const v1::NodeTrust& trust);
nlohmann::json AuditsJson(const v1::Audits& audits);
nlohmann::json LedgerJson(const v1::LedgerFigures& ledger);

// Lines about audits and the ledger, and a table of the nodes that are judged; nothing where the
// coordinator keeps no ledger.
void PrintIncentive(const v1::StatusReply& status);

}  // namespace efedllm

#endif  // EFEDLLM_APP_CTL_TRUST_H_
