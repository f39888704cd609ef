// The method names that both ends of a hop agree on. For this folder.
#ifndef EFEDLLM_NET_HOP_METHOD_H_
#define EFEDLLM_NET_HOP_METHOD_H_

namespace efedllm {

inline constexpr char kHopMethod[] = "/efedllm.v1.Stage/Hop";
inline constexpr char kEchoMethod[] = "/efedllm.v1.Stage/Echo";
inline constexpr char kKvMethod[] = "/efedllm.v1.Stage/Kv";
inline constexpr char kRowsMethod[] = "/efedllm.v1.Stage/Rows";
inline constexpr char kReplayMethod[] = "/efedllm.v1.Stage/Replay";

}  // namespace efedllm

#endif  // EFEDLLM_NET_HOP_METHOD_H_
