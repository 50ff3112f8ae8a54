// Which token is drawn: min_p, typical_p, top_k, top_p keep some, each among those that the ones before it have kept.
#pragma once
#include "philox.h"
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

// The tokens of a row that may be drawn: those of the logits x that the filters have left.
class Candidates {
 public:
  // x may be the memory's. memory.maxima: those of x's blocks.
  Candidates(const RowMemory& memory, const float* x, int64_t V, float peak, float temperature)
      : memory_(memory), kept_{x, V, {-INFINITY, peak, 1 / temperature}, V} {}

  void filter(const mg_sampling_row& row) {
    if (row.min_p > 0) keep_min_p(row.min_p);
    if (row.typical_p < 1) keep_typical(row.typical_p);
    if (row.top_k > 0 && row.top_k < kept_.count) keep_top_k(row.top_k, row.typical_p < 1);
  }

  // The place of a token; -1 if the filters have left it out.
  int64_t place_of(int32_t token) const {
    int64_t place = token;
    if (is_list_) {
      for (place = 0; place < kept_.count && memory_.tokens[place] != token; place++) {
      }
    }
    return place < kept_.count && kept_.has(place) && kept_.x[place] > -INFINITY ? place : -1;
  }

  // Whether `draw` might come to a place: less than the share top_p lies before it.
  bool may_draw(int64_t place, float top_p) const {
    if (top_p >= 1) return true;
    KeptWeights left = kept_;
    const double total = sum_weights(left.count, left, memory_.maxima);
    left.keep_down_to(left.x[place], place);
    const double before = sum_weights(left.count, left, memory_.maxima);
    return before < top_p * total || before == 0;
  }

  // Of the largest ones that have the share top_p of the weight together, by rejection: whoever is drawn from all is
  // as likely as drawn from those, once it is one of them; if not, only those before it are left for the next round
  // (as in FlashInfer's sampling).
  // Returns its place.
  int64_t draw(const mg_sampling_row& row) const {
    float* sums = memory_.maxima;
    KeptWeights left = kept_;
    const double total = sum_weights(left.count, left, sums);
    double weight = total;
    for (uint64_t round = 0;; round++) {
      const int64_t place = find_place(left, sums, philox_uniform(row.seed, row.position, round) * weight);
      if (row.top_p >= 1) return place;
      left.keep_down_to(left.x[place], place);
      const double before = sum_weights(left.count, left, sums);
      if (before < row.top_p * total || before == 0) return place;
      weight = before;
    }
  }

  int32_t token_at(int64_t place) const { return is_list_ ? memory_.tokens[place] : (int32_t)place; }

  // Of what was drawn, in the distribution that it was drawn from: among the largest ones that have the share top_p.
  float logprob(int64_t place, float top_p) {
    KeptWeights likely = kept_;
    const float x = kept_.x[place];
    if (top_p < 1) {
      const Threshold last =
          select_largest(kept_.count, WeighedElements{kept_}, pivots_below_peak(), top_p, true, memory_.list);
      // Sums in another order may round to one element less than `draw` sees.
      const bool is_beyond = x < last.key || (x == last.key && place >= last.limit);
      if (is_beyond) likely.keep_down_to(x, place + 1);
      else if (last.key >= likely.weights.floor) likely.keep_down_to(last.key, last.limit);
    }
    const Weights& weights = likely.weights;
    return (x - weights.peak) * weights.scale - (float)log(sum_weights(likely.count, likely, nullptr));
  }

 private:

  void keep_min_p(float min_p) { kept_.weights.floor = kept_.weights.peak + logf(min_p) / kept_.weights.scale; }

  // Nearest to the expected information (Meister et al., arXiv:2202.00666), those at equal distance together.
  void keep_typical(float mass) {
    const Weights& weights = kept_.weights;
    const int64_t count = kept_.count;
    double total = 0, moment = 0;
    for (int64_t chunk = 0; chunk < count; chunk += kChunk) {
      floatv sums{}, moments{};
      for (int64_t i = chunk; i < least(chunk + kChunk, count); i += kWidth) {
        const floatv x = load_logits(kept_.x + i, count - i), weight = weights(x);
        sums += weight;
        moments += weight * maximum(weights.scaled(x), broadcast(-104.0f));
      }
      total += sum(sums);
      moment += sum(moments);
    }
    const TypicalElements typical{kept_, (float)(moment / total)};
    const Pivots pivots{{-0.05f, -0.2f, -0.5f, -1, -2, -3.5f, -5.5f, -8, -INFINITY}};
    const Threshold threshold = select_largest(count, typical, pivots, mass, true, memory_.list);
    for (int64_t i = 0; i < count; i += kWidth) {
      const floatv value = load_logits(kept_.x + i, count - i);
      store_upto(memory_.x + i, select(typical.keys(i) >= threshold.key, value, broadcast(-INFINITY)), count - i);
    }
    kept_.x = memory_.x;
  }

  void keep_top_k(int64_t k, bool maxima_are_stale) {
    if (k <= num_blocks(kept_.count)) {
      if (maxima_are_stale) find_peak(kept_.x, kept_.count, memory_.maxima);
      const float bound = lower_bound(memory_.maxima, num_blocks(kept_.count), k);
      become_list(bound > kept_.weights.floor ? bound : kept_.weights.floor);
    }
    if (k >= kept_.count) return;
    const Threshold threshold =
        select_largest(kept_.count, CountedElements{kept_}, pivots_below_peak(), (double)k, false, memory_.list);
    if (threshold.key < kept_.weights.floor) return;
    kept_.keep_down_to(threshold.key, threshold.limit);
  }

  // Leaves only those of at least the floor, side by side.
  void become_list(float floor) {
    kept_.count = collect_at_least(kept_.x, kept_.count, floor, memory_.x, memory_.tokens);
    kept_.x = memory_.x;
    kept_.limit = kept_.count;
    is_list_ = true;
  }

  Pivots pivots_below_peak() const {
    Pivots pivots{{0.5f, 1, 2, 3.5f, 5.5f, 8, 11, 15, INFINITY}};
    for (float& pivot : pivots.at) pivot = kept_.weights.peak - pivot / kept_.weights.scale;
    return pivots;
  }

  // Keyed by their logits.
  struct WeighedElements {
    const KeptWeights& kept;

    floatv keys(int64_t i) const {
      return select(weights(i) > 0, load_logits(kept.x + i, kept.count - i), broadcast(-INFINITY));
    }
    floatv weights(int64_t i) const { return kept(i); }
    intv places(int64_t i) const { return lane_numbers() + (int32_t)i; }
  };

  // Keyed by their logits, each of the weight 1.
  struct CountedElements {
    const KeptWeights& kept;

    floatv keys(int64_t i) const {
      const floatv value = load_logits(kept.x + i, kept.count - i);
      return select(value >= kept.weights.floor, value, broadcast(-INFINITY));
    }
    floatv weights(int64_t i) const { return select(keys(i) > -INFINITY, floatv{} + 1, floatv{}); }
    intv places(int64_t i) const { return lane_numbers() + (int32_t)i; }
  };

  // Keyed by how near their information is to the expected one.
  struct TypicalElements {
    const KeptWeights& kept;
    const float expected;

    floatv keys(int64_t i) const {
      const floatv x = load_logits(kept.x + i, kept.count - i), scaled = kept.weights.scaled(x);
      const floatv difference = scaled - expected;
      const intv is_kept = (x >= kept.weights.floor) & (scaled > -104.0f);
      return select(is_kept, -maximum(difference, -difference), broadcast(-INFINITY));
    }
    floatv weights(int64_t i) const { return kept.weights(load_logits(kept.x + i, kept.count - i)); }
    intv places(int64_t i) const { return lane_numbers() + (int32_t)i; }
  };

  RowMemory memory_;
  KeptWeights kept_;
  bool is_list_ = false;
};

}  // namespace mindgen::MG_ISA
