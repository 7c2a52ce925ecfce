// gaia.js for `import`: the same functions, by name.
import "./gaia.js";

export const { init, stop, item, attempt, hint, track, helpPlease, rate, flush, status, version } = globalThis.GAIA;
export default globalThis.GAIA;
