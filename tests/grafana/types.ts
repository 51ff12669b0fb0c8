// What Grafana says of a dashboard, as strict as its types allow: each kind of panel with its own options, each query
// with what the Prometheus data source knows. A field that Grafana does not know is an error.

import type { Dashboard, FieldConfigSource, Panel, RowPanel } from "@grafana/schema";
import type * as BarGauge from "@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen";
import type * as Stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as StateTimeline from "@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
import type * as TimeSeries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";
import type { Dataquery } from "@grafana/grafana-foundation-sdk/prometheus";

/** A type as JSON has it: enums are their values. */
type Plain<T> = T extends string
  ? `${T}`
  : T extends number
    ? number extends T
      ? number
      : `${T}` extends `${infer N extends number}`
        ? N
        : never
    : T extends (infer U)[]
      ? Plain<U>[]
      : T extends object
        ? { [K in keyof T]: Plain<T[K]> }
        : T;

type Defaults<Custom> = Omit<FieldConfigSource["defaults"], "custom"> & { custom?: Custom };
interface Fields<Custom> extends Omit<FieldConfigSource, "defaults"> {
  defaults: Defaults<Custom>;
}
interface Query extends Omit<Dataquery, "_implementsDataqueryVariant" | "datasource"> {
  refId: string;
  datasource: { type: "prometheus"; uid: string };
}
interface Of<Kind extends string, Options, Custom> extends Omit<Panel, "type" | "options" | "fieldConfig" | "targets"> {
  type: Kind;
  options: Options;
  fieldConfig: Fields<Custom>;
  targets: Query[];
}

export interface Panels {
  row: Plain<RowPanel>;
  timeseries: Plain<Of<"timeseries", TimeSeries.Options, TimeSeries.FieldConfig>>;
  stat: Plain<Of<"stat", Stat.Options, never>>;
  bargauge: Plain<Of<"bargauge", BarGauge.Options, never>>;
  "state-timeline": Plain<Of<"state-timeline", StateTimeline.Options, StateTimeline.FieldConfig>>;
}
export type WithoutPanels = Plain<Omit<Dashboard, "panels">>;
