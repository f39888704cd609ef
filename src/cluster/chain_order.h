// In which order a token visits nodes, so that it travels the least.
#ifndef EFEDLLM_CLUSTER_CHAIN_ORDER_H_
#define EFEDLLM_CLUSTER_CHAIN_ORDER_H_

#include <cstddef>
#include <vector>

#include "cluster/network.h"

namespace efedllm {

// Seconds of all hops from the coordinator through the ends in this order and back, for frames of
// so many bytes. Ends: as Network counts them.
double TourSeconds(const Network& network, const std::vector<size_t>& ends, double bytes);

// The round trip from the coordinator through all of them with the least time in hops: exact for
// few, nearest neighbour and local improvements for many. Hops count in whole
// milliseconds: among equals the order of `ends` stays, so that the noise of a measurement moves
// nobody's layers.
std::vector<size_t> ChainOrder(const Network& network, const std::vector<size_t>& ends,
                               double bytes);

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_CHAIN_ORDER_H_
