-- Where the hour, day or week begins that `at` lies in, on the clocks of the time zone `tz`: weeks begin on Mondays, a
-- day of DST has 23 or 25 hours. Any other grain: one period, whose beginning says nothing. The arguments that name the
-- grain and the time zone are constants, so that only the branch that is asked for is left of it.
CREATE FUNCTION IF NOT EXISTS period_start AS (at, grain, tz) ->
    if(grain = 'hour', toStartOfHour(at, tz),
    if(grain = 'day', toStartOfDay(at, tz),
    if(grain = 'week', toStartOfDay(toStartOfWeek(at, 1, tz), tz),
    toDateTime(0, tz))));
