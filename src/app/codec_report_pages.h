// A codec report to read: tables, plots, a page, and JSON.
#ifndef EFEDLLM_APP_CODEC_REPORT_PAGES_H_
#define EFEDLLM_APP_CODEC_REPORT_PAGES_H_

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "app/codec_report.h"

namespace efedllm {

nlohmann::json CodecReportJson(const CodecReport& report);

// In Markdown, which a terminal shows well too.
std::string CodecReportTable(const CodecReport& report);

// All boundaries together: bytes against mean KL, perplexity and, if tasks were asked, accuracy.
std::string TogetherSvg(const CodecReport& report);
// Bytes against mean KL of each boundary alone.
std::string BoundariesSvg(const CodecReport& report);
// Energy by direction, before and after the mean and the massive dimensions were taken out.
std::string SpectraSvg(const CodecReport& report);

// One file with all of it.
std::string CodecReportHtml(const CodecReport& report);

}  // namespace efedllm

#endif  // EFEDLLM_APP_CODEC_REPORT_PAGES_H_
