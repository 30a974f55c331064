// Slide and mask as layers of the deep-zoom viewer.

import { about } from "./api.js";

const SWAP_SECONDS = 10;

/** The squares of a layer; `finest` zooms beyond the image's own pixels are below 0. */
function source(facts, finest, address) {
  const { coarsest, square } = facts.zoom;
  return {
    width: facts.image.width * 2 ** -finest,
    height: facts.image.height * 2 ** -finest,
    tileSize: square,
    tileOverlap: 0,
    minLevel: 0,
    maxLevel: coarsest - finest,
    getTileUrl: (level, x, y) => address(coarsest - level, y, x),
  };
}

export class SlideLayer {
  constructor(viewer, facts) {
    const tileSource = source(facts, 0, (zoom, row, col) => about(`/api/slide/${zoom}/${row}/${col}`));
    viewer.addTiledImage({ tileSource, index: 0, width: 1, success: ({ item }) => (this.item = item) });
  }

  show(isOn) {
    this.item?.setOpacity(isOn ? 1 : 0);
  }
}

/** The mask as it was at one revision of the ledger. Another look at it is loaded unseen, then takes its place. */
export class MaskLayer {
  constructor(viewer, facts, onShown) {
    Object.assign(this, { viewer, facts, onShown, asked: "", opacity: 0.5, item: null, coming: null });
  }

  show({ revision, labels, palette, style }) {
    const parameters = { v: revision, labels: labels.join(","), palette, style };
    const asked = JSON.stringify(parameters);
    if (asked === this.asked) return;
    this.asked = asked;
    const { finest } = this.facts.zoom;
    const tileSource = source(this.facts, finest, (zoom, row, col) =>
      about(`/api/mask/${zoom}/${row}/${col}`, parameters),
    );
    const success = ({ item }) => this._load(item, asked);
    this.viewer.addTiledImage({ tileSource, width: 1, opacity: 0, preload: true, success });
  }

  setOpacity(opacity) {
    this.opacity = opacity;
    this.item?.setOpacity(opacity);
  }

  _load(item, asked) {
    if (this.coming) this._remove(this.coming);
    this.coming = item;
    let isSwapped = false;
    const swap = () => {
      if (isSwapped || this.coming !== item) return;
      isSwapped = true;
      const former = this.item;
      [this.item, this.coming] = [item, null];
      item.setOpacity(this.opacity);
      item.setPreload(false);
      if (former) this._remove(former);
      this.onShown(asked);
    };
    item.whenFullyLoaded(swap);
    setTimeout(swap, SWAP_SECONDS * 1000);
  }

  _remove(item) {
    if (this.viewer.world.getIndexOfItem(item) >= 0) this.viewer.world.removeItem(item);
  }
}
