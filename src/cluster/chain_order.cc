#include "cluster/chain_order.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace efedllm {
namespace {

constexpr double kUnitSeconds = 1e-3;
constexpr size_t kMostExact = 8;
constexpr size_t kMostImproved = 160;
constexpr double kNever = std::numeric_limits<double>::infinity();

// Costs between the given ends; number 0 is the coordinator, i + 1 is ends[i].
class Costs {
 public:
  Costs(const Network& network, const std::vector<size_t>& ends, double bytes)
      : size_(ends.size() + 1), costs_(size_ * size_) {
    for (size_t i = 0; i < size_; ++i) {
      for (size_t j = 0; j < size_; ++j) {
        if (i == j) continue;
        const size_t from = i == 0 ? 0 : ends[i - 1];
        const size_t to = j == 0 ? 0 : ends[j - 1];
        // Upwards is a hair cheaper: among equals the given order wins.
        costs_[i * size_ + j] = std::floor(network.HopSeconds(from, to, bytes) / kUnitSeconds) +
                                (j != 0 && j < i ? 1e-3 : 0);
      }
    }
  }
  size_t size() const { return size_; }
  double operator()(size_t from, size_t to) const { return costs_[from * size_ + to]; }

 private:
  size_t size_;
  std::vector<double> costs_;
};

// Held and Karp's dynamic programme over subsets.
std::vector<size_t> Exact(const Costs& costs) {
  const size_t n = costs.size() - 1;
  const size_t sets = size_t{1} << n;
  std::vector<double> best(sets * n, kNever);
  std::vector<size_t> before(sets * n, n);
  for (size_t i = 0; i < n; ++i) best[(size_t{1} << i) * n + i] = costs(0, i + 1);
  for (size_t set = 1; set < sets; ++set) {
    for (size_t last = 0; last < n; ++last) {
      const double so_far = best[set * n + last];
      if (so_far == kNever) continue;
      for (size_t next = 0; next < n; ++next) {
        if ((set >> next & 1) != 0) continue;
        const size_t at = (set | size_t{1} << next) * n + next;
        const double cost = so_far + costs(last + 1, next + 1);
        if (cost < best[at]) {
          best[at] = cost;
          before[at] = last;
        }
      }
    }
  }
  size_t set = sets - 1;
  size_t last = 0;
  for (size_t i = 1; i < n; ++i) {
    if (best[set * n + i] + costs(i + 1, 0) < best[set * n + last] + costs(last + 1, 0)) last = i;
  }
  std::vector<size_t> tour;
  while (set != 0) {
    tour.push_back(last + 1);
    const size_t previous = before[set * n + last];
    set &= ~(size_t{1} << last);
    last = previous;
  }
  std::reverse(tour.begin(), tour.end());
  return tour;
}

std::vector<size_t> NearestNeighbour(const Costs& costs) {
  std::vector<size_t> left;
  for (size_t i = 1; i < costs.size(); ++i) left.push_back(i);
  std::vector<size_t> tour;
  size_t at = 0;
  while (!left.empty()) {
    const auto next = std::min_element(
        left.begin(), left.end(), [&](size_t a, size_t b) { return costs(at, a) < costs(at, b); });
    at = *next;
    tour.push_back(at);
    left.erase(next);
  }
  return tour;
}

double Cost(const Costs& costs, const std::vector<size_t>& tour) {
  double sum = 0;
  size_t at = 0;
  for (const size_t next : tour) sum += costs(std::exchange(at, next), next);
  return sum + costs(at, 0);
}

// Moves single nodes and turns stretches round while that helps.
void Improve(const Costs& costs, std::vector<size_t>& tour) {
  const size_t n = tour.size();
  const auto at = [&](size_t i) { return i == 0 || i > n ? size_t{0} : tour[i - 1]; };
  for (int pass = 0; pass < 8; ++pass) {
    bool better = false;
    for (size_t i = 1; i <= n; ++i) {
      const size_t node = at(i);
      const double saved =
          costs(at(i - 1), node) + costs(node, at(i + 1)) - costs(at(i - 1), at(i + 1));
      for (size_t j = 0; j <= n; ++j) {
        if (j == i || j + 1 == i) continue;
        const double paid = costs(at(j), node) + costs(node, at(j + 1)) - costs(at(j), at(j + 1));
        if (paid >= saved - 1e-6) continue;
        tour.erase(tour.begin() + static_cast<ptrdiff_t>(i - 1));
        tour.insert(tour.begin() + static_cast<ptrdiff_t>(j > i ? j - 1 : j), node);
        better = true;
        break;
      }
    }
    // Links may differ by direction, so a stretch that was turned round is counted anew.
    for (size_t i = 0; i + 1 < n; ++i) {
      for (size_t j = i + 2; j <= std::min(n, i + 24); ++j) {
        std::vector<size_t> turned = tour;
        std::reverse(turned.begin() + static_cast<ptrdiff_t>(i),
                     turned.begin() + static_cast<ptrdiff_t>(j));
        if (Cost(costs, turned) >= Cost(costs, tour) - 1e-6) continue;
        tour = std::move(turned);
        better = true;
      }
    }
    if (!better) return;
  }
}

}  // namespace

double TourSeconds(const Network& network, const std::vector<size_t>& ends, double bytes) {
  double sum = 0;
  size_t at = 0;
  for (const size_t next : ends) sum += network.HopSeconds(std::exchange(at, next), next, bytes);
  return sum + (at == 0 ? 0 : network.HopSeconds(at, 0, bytes));
}

std::vector<size_t> ChainOrder(const Network& network, const std::vector<size_t>& ends,
                               double bytes) {
  if (ends.size() < 2) return ends;
  const Costs costs(network, ends, bytes);
  std::vector<size_t> tour;
  if (ends.size() <= kMostExact) {
    tour = Exact(costs);
  } else {
    tour = NearestNeighbour(costs);
    if (tour.size() <= kMostImproved) Improve(costs, tour);
  }
  std::vector<size_t> order;
  order.reserve(tour.size());
  for (const size_t i : tour) order.push_back(ends[i - 1]);
  return order;
}

}  // namespace efedllm
