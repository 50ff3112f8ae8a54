// Which tokens may be drawn: min_p, typical_p, top_k, top_p, each among those that the ones before it have kept.
#pragma once
#include "selection.h"

namespace mindgen::MG_ISA {

// A thread's memory for a row of V elements.
struct RowMemory {
  float* x;
  int32_t* tokens;
  float* maxima;  // of blocks, room for twice as many
  Shortlist list;

  explicit RowMemory(int64_t V) {
    const int64_t room = (V + 2 * kWidth + 15) / 16 * 16;
    const int64_t blocks = (2 * num_blocks(V) + 15) / 16 * 16;
    float* memory = (float*)scratch(kScratchLogits, (5 * room + blocks) * sizeof(float));
    x = memory;
    tokens = (int32_t*)(memory + room);
    list = {memory + 2 * room, memory + 3 * room, (int32_t*)(memory + 4 * room), 0};
    maxima = memory + 5 * room;
  }
};

// The processed logits of a row: those of at least `floor` may be drawn.
class Candidates {
 public:
  Candidates(const RowMemory& memory, int64_t V, float peak, float temperature)
      : memory_(memory), x_(memory.x), count_(V), weights_{-INFINITY, peak, 1 / temperature} {}

  void filter(const mg_sampling_row& row) {
    if (row.min_p > 0) keep_min_p(row.min_p);
    if (row.typical_p < 1) keep_typical(row.typical_p);
    if (row.top_k > 0 && row.top_k < count_) keep_top_k(row.top_k, row.typical_p < 1);
    if (row.top_p < 1) keep_largest<false>(row.top_p);
  }

  int32_t draw(double uniform) {
    const int64_t place = draw_place(x_, count_, weights_, uniform, memory_.maxima);
    return is_list_ ? memory_.tokens[place] : (int32_t)place;
  }

 private:
  void keep_min_p(float min_p) { weights_.floor = weights_.peak + logf(min_p) / weights_.scale; }

  // Nearest to the expected information (Meister et al., arXiv:2202.00666), those at equal distance together.
  void keep_typical(float mass) {
    double total = 0, moment = 0;
    for (int64_t chunk = 0; chunk < count_; chunk += kChunk) {
      floatv sums{}, moments{};
      for (int64_t i = chunk; i < least(chunk + kChunk, count_); i += kWidth) {
        const floatv x = load_logits(x_ + i, count_ - i), weight = weights_(x);
        sums += weight;
        moments += weight * maximum(weights_.scaled(x), broadcast(-104.0f));
      }
      total += sum(sums);
      moment += sum(moments);
    }
    const TypicalElements typical{*this, (float)(moment / total)};
    const Pivots pivots{{-0.05f, -0.2f, -0.5f, -1, -2, -3.5f, -5.5f, -8, -INFINITY}};
    const Threshold threshold = select_largest(count_, typical, pivots, mass, true, memory_.list);
    for (int64_t i = 0; i < count_; i += kWidth) {
      const floatv value = load_logits(x_ + i, count_ - i);
      store_upto(x_ + i, select(typical.keys(i) >= threshold.key, value, broadcast(-INFINITY)), count_ - i);
    }
  }

  void keep_top_k(int64_t k, bool maxima_are_stale) {
    if (k <= num_blocks(count_)) {
      if (maxima_are_stale) find_peak(x_, count_, memory_.maxima);
      const float bound = lower_bound(memory_.maxima, num_blocks(count_), k);
      become_list(bound > weights_.floor ? bound : weights_.floor);
    }
    if (k >= count_) return;
    keep_largest<true>((double)k);
    if (is_list_) become_list(weights_.floor);
  }

  // So many of them, or those of this share of the weight.
  template <bool kCount>
  void keep_largest(double target) {
    const Elements<kCount> elements{x_, count_, weights_};
    set_floor(select_largest(count_, elements, pivots_below_peak(), target, !kCount, memory_.list));
  }

  void set_floor(const Threshold& threshold) {
    for (int64_t i = threshold.tied_from; i < threshold.tied_to; i++) x_[memory_.list.places[i]] = -INFINITY;
    if (threshold.key > weights_.floor) weights_.floor = threshold.key;
  }

  // Leaves only those of at least the floor, side by side.
  void become_list(float floor) {
    Shortlist& list = memory_.list;
    count_ = collect_at_least(x_, count_, floor, x_, list.places);
    for (int64_t i = 0; i < count_; i++) memory_.tokens[i] = is_list_ ? memory_.tokens[list.places[i]] : list.places[i];
    is_list_ = true;
  }

  Pivots pivots_below_peak() const {
    Pivots pivots{{0.5f, 1, 2, 3.5f, 5.5f, 8, 11, 15, INFINITY}};
    for (float& pivot : pivots.at) pivot = weights_.peak - pivot / weights_.scale;
    return pivots;
  }

  // Keyed by their logits, each of the weight 1 or of its probability's.
  template <bool kCount>
  struct Elements {
    const float* x;
    int64_t count;
    Weights by_probability;

    floatv keys(int64_t i) const {
      const floatv value = load_logits(x + i, count - i);
      return select(value >= by_probability.floor, value, broadcast(-INFINITY));
    }
    floatv weights(int64_t i) const {
      return kCount ? select(keys(i) > -INFINITY, floatv{} + 1, floatv{}) : by_probability(load_logits(x + i, count - i));
    }
    intv places(int64_t i) const { return lane_numbers() + (int32_t)i; }
  };

  // Keyed by how near their information is to the expected one.
  struct TypicalElements {
    const Candidates& row;
    const float expected;

    floatv keys(int64_t i) const {
      const floatv x = load_logits(row.x_ + i, row.count_ - i), difference = row.weights_.scaled(x) - expected;
      const intv kept = (x >= row.weights_.floor) & (row.weights_.scaled(x) > -104.0f);
      return select(kept, -maximum(difference, -difference), broadcast(-INFINITY));
    }
    floatv weights(int64_t i) const { return row.weights_(load_logits(row.x_ + i, row.count_ - i)); }
    intv places(int64_t i) const { return lane_numbers() + (int32_t)i; }
  };

  RowMemory memory_;
  float* x_;
  int64_t count_;
  Weights weights_;
  bool is_list_ = false;
};

}  // namespace mindgen::MG_ISA
