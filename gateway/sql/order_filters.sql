    -- Included where orders are searched; only the lines stay whose parameters are asked for.
    true
    AND order_id IN {ids:Array(String)}
    AND status IN {statuses:Array(String)}
    AND number = {number:String}
    AND customer_id = {customer_id:String}
    AND has(skus, {sku:String})
    AND arrayExists(name -> positionCaseInsensitiveUTF8(name, {product:String}) > 0, names)
    AND hold IN {holds:Array(String)}
    AND has(promo_codes, {promo_code:String})
    AND has(tracking_numbers, {tracking_number:String})
    AND country = {country:String}
    AND currency = {currency:String}
    AND total >= {total_min:Int64}
    AND total <= {total_max:Int64}
    AND created_at >= fromUnixTimestamp64Micro({created_from:Int64}, 'UTC')
    AND created_at < fromUnixTimestamp64Micro({created_to:Int64}, 'UTC')
    AND ifNull(submitted_at >= fromUnixTimestamp64Micro({submitted_from:Int64}, 'UTC'), false)
    AND ifNull(submitted_at < fromUnixTimestamp64Micro({submitted_to:Int64}, 'UTC'), false)
    AND updated_at >= fromUnixTimestamp64Micro({updated_from:Int64}, 'UTC')
    AND updated_at < fromUnixTimestamp64Micro({updated_to:Int64}, 'UTC')
