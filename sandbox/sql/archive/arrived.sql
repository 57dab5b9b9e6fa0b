-- What arrived in the period; `days` only spares the engine the copies that were far away from it.
WHERE later(rows.appended_at) >= {from:DateTime64(3, 'UTC')} AND later(rows.appended_at) < {to:DateTime64(3, 'UTC')}
  AND copies.days BETWEEN {first_days:Int32} AND {last_days:Int32}
